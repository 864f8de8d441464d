"""pydantic-ai over the three APIs: an agent with a tool, and typed output."""

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from scenarios import CALL_WEATHER, KEY, MODEL, URL, WEATHER, equal, holds, run


class Person(BaseModel):
    name: str
    age: int


def chat():
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))


def responses():
    return OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))


def messages():
    return AnthropicModel(MODEL, provider=AnthropicProvider(base_url=URL, api_key=KEY))


def scenarios_of(name, make):
    def an_agent_with_a_tool():
        agent = Agent(make())

        @agent.tool_plain
        def get_weather(city: str) -> str:
            return f"18 degrees and rain in {city}"

        holds(agent.run_sync(CALL_WEATHER).output, WEATHER)

    def typed_output():
        agent = Agent(make(), output_type=Person)
        asked = '[[sim call final_result name="Ada" age=36]] Who wrote the first program?'
        equal(agent.run_sync(asked).output, Person(name="Ada", age=36))

    async def streams():
        async with Agent(make()).run_stream("[[sim repeat 30]]") as result:
            holds("".join([piece async for piece in result.stream_text(delta=True)]), "word30")

    for scenario in (an_agent_with_a_tool, typed_output, streams):
        scenario.__name__ = f"{name}: {scenario.__name__}"
        yield scenario


run(*scenarios_of("chat", chat), *scenarios_of("responses", responses), *scenarios_of("messages", messages))
