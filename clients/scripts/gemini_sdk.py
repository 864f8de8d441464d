"""Google's SDK for Python, with its base URL set."""

from google import genai
from google.genai import types
from scenarios import CALL_WEATHER, CITY, KEY, MODEL, URL, WEATHER, equal, holds, run

client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=URL))
WEATHER_TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            description="The weather of a city",
            parameters_json_schema={
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        )
    ]
)
BY_HAND = types.GenerateContentConfig(
    tools=[WEATHER_TOOL], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
)


def chats():
    equal(client.models.generate_content(model=MODEL, contents="[[sim say Hello]]").text, "Hello")


def streams():
    pieces = [
        piece.text or "" for piece in client.models.generate_content_stream(model=MODEL, contents="[[sim repeat 30]]")
    ]
    assert len(pieces) > 1
    holds("".join(pieces), "word30")


def calls_a_tool_and_uses_its_result():
    first = client.models.generate_content(model=MODEL, contents=CALL_WEATHER, config=BY_HAND)
    (call,) = first.function_calls
    equal(call.args, {"city": CITY})
    contents = [
        types.Content(role="user", parts=[types.Part.from_text(text=CALL_WEATHER)]),
        first.candidates[0].content,
        types.Content(
            role="user", parts=[types.Part.from_function_response(name="get_weather", response={"result": WEATHER})]
        ),
    ]
    holds(client.models.generate_content(model=MODEL, contents=contents, config=BY_HAND).text, WEATHER)


def calls_functions_by_itself():
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"18 degrees and rain in {city}"

    config = types.GenerateContentConfig(tools=[get_weather])
    holds(client.models.generate_content(model=MODEL, contents=CALL_WEATHER, config=config).text, WEATHER)


def counts_tokens():
    assert client.models.count_tokens(model=MODEL, contents="Hello, world").total_tokens > 2


run(chats, streams, calls_a_tool_and_uses_its_result, calls_functions_by_itself, counts_tokens)
