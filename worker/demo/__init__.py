"""`worker demo`: donations are charged over a payments API while one worker is killed.

`app` is what a user would write: the handler. `table` is the user's table and how it is adopted,
`api` the payments API, `crew` the processes, `figures` what the tables and the API say, `screen`
how it is shown, `play` the story.
"""

from __future__ import annotations
