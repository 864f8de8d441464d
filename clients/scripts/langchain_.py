"""LangChain over both of its providers, and over the Responses API."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from scenarios import CALL_WEATHER, CITY, KEY, MODEL, PERSON, URL, WEATHER, equal, holds, run

BY_TOOL = '[[sim call Person name="Ada" age=36]] Who wrote the first program?'


class Person(BaseModel):
    """A person"""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city"""
    return f"18 degrees and rain in {city}"


def openai():
    return ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL)


def responses():
    return ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, use_responses_api=True)


def messages():
    return ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_tokens=1000)


def scenarios_of(name, make):
    def streams():
        holds("".join(str(piece.text) for piece in make().stream("[[sim repeat 30]]")), "word30")

    def calls_a_tool():
        model = make().bind_tools([get_weather])
        question = HumanMessage(CALL_WEATHER)
        first = model.invoke([question])
        (call,) = first.tool_calls
        equal(call["args"], {"city": CITY})
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        holds(str(model.invoke([question, first, result]).text), WEATHER)

    def structured_output():
        asked = BY_TOOL if make is messages else PERSON  # over Anthropic's API it forces a tool
        equal(make().with_structured_output(Person).invoke(asked), Person(name="Ada", age=36))

    def structured_output_by_a_forced_tool():
        asked = make().with_structured_output(Person, method="function_calling")
        equal(asked.invoke(BY_TOOL), Person(name="Ada", age=36))

    for scenario in (streams, calls_a_tool, structured_output, structured_output_by_a_forced_tool):
        scenario.__name__ = f"{name}: {scenario.__name__}"
        yield scenario


run(*scenarios_of("chat", openai), *scenarios_of("responses", responses), *scenarios_of("messages", messages))
