do {tag} begin
    if to_regclass('worker.sources') is not null then
        delete from worker.sources where name = {name};
    end if;
end {tag}
