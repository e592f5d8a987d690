"""What docker/compose.yaml runs."""

from worker import App, Context

app = App()


@app.handler
async def hello(name: str, context: Context) -> None:
    context.log.info("hello", name=name)
