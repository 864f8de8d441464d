// The official OpenAI SDK for Node: chat completions with its helpers, and responses.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CALL_WEATHER, KEY, MODEL, PERSON, URL_, WEATHER, equal, holds, run } from "./scenarios.mjs";

const client = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: KEY });
const Person = z.object({ name: z.string(), age: z.number() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const ask = (text) => [{ role: "user", content: text }];

await run({
  "lists models": async () => {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    holds(found, MODEL);
  },
  chats: async () => {
    const reply = await client.chat.completions.create({ model: MODEL, messages: ask("[[sim say Hello]]") });
    equal(reply.choices[0].message.content, "Hello");
  },
  "streams with its helper": async () => {
    const stream = client.chat.completions.stream({ model: MODEL, messages: ask("[[sim repeat 30]]") });
    let text = "";
    stream.on("content", (piece) => (text += piece));
    equal((await stream.finalChatCompletion()).choices[0].message.content, text);
    holds(text, "word30");
  },
  "runs tools": async () => {
    const runner = client.chat.completions.runTools({
      model: MODEL,
      messages: ask(CALL_WEATHER),
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            parse: JSON.parse,
            parameters,
            function: ({ city }) => `18 degrees and rain in ${city}`,
          },
        },
      ],
    });
    holds(await runner.finalContent(), WEATHER);
  },
  "runs tools, streamed": async () => {
    const runner = client.chat.completions.runTools({
      model: MODEL,
      stream: true,
      messages: ask(CALL_WEATHER),
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            parse: JSON.parse,
            parameters,
            function: ({ city }) => `18 degrees and rain in ${city}`,
          },
        },
      ],
    });
    holds(await runner.finalContent(), WEATHER);
  },
  "parses structured output": async () => {
    const reply = await client.chat.completions.parse({
      model: MODEL,
      messages: ask(PERSON),
      response_format: zodResponseFormat(Person, "person"),
    });
    equal(reply.choices[0].message.parsed, { name: "Ada", age: 36 });
  },
  "streams a response": async () => {
    const stream = client.responses.stream({ model: MODEL, input: "[[sim repeat 30]]" });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    equal((await stream.finalResponse()).output_text, text);
    holds(text, "word30");
  },
  "continues a response after a tool": async () => {
    const tools = [{ type: "function", name: "get_weather", parameters, strict: false }];
    const first = await client.responses.create({ model: MODEL, input: CALL_WEATHER, tools });
    const call = first.output.find((item) => item.type === "function_call");
    const second = await client.responses.create({
      model: MODEL,
      tools,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: WEATHER }],
    });
    holds(second.output_text, WEATHER);
  },
  "parses a response": async () => {
    const reply = await client.responses.parse({
      model: MODEL,
      input: PERSON,
      text: { format: zodTextFormat(Person, "person") },
    });
    equal(reply.output_parsed, { name: "Ada", age: 36 });
  },
});
