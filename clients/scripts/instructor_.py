"""instructor: typed output by forced tools, by JSON schema, and over Anthropic's SDK of the version it pins."""

import anthropic
import instructor
from openai import OpenAI
from pydantic import BaseModel
from scenarios import KEY, MODEL, PERSON, URL, equal, run

BY_TOOL = '[[sim call Person name="Ada" age=36]] Who wrote the first program?'
openai = OpenAI(base_url=f"{URL}/v1", api_key=KEY)


class Person(BaseModel):
    name: str
    age: int


def ask(client, prompt, **more):
    reply = client.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], response_model=Person, max_retries=0, **more
    )
    equal((reply.name, reply.age), ("Ada", 36))  # it makes a class of its own of ours


def by_a_forced_tool():
    ask(instructor.from_openai(openai, mode=instructor.Mode.TOOLS), BY_TOOL)


def by_json_schema():
    ask(instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA), PERSON)


def by_json_mode():
    ask(instructor.from_openai(openai, mode=instructor.Mode.JSON), PERSON)


def over_messages():
    client = anthropic.Anthropic(base_url=URL, api_key=KEY)
    ask(instructor.from_anthropic(client), BY_TOOL, max_tokens=500)


run(by_a_forced_tool, by_json_schema, by_json_mode, over_messages)
