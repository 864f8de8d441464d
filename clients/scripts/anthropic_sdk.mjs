// The official Anthropic SDK for Node: streams, the tool runner, counting.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { CALL_WEATHER, CITY, KEY, MODEL, URL_, WEATHER, equal, holds, run } from "./scenarios.mjs";

const client = new Anthropic({ baseURL: URL_, apiKey: KEY });
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "get_weather", description: "The weather of a city", input_schema }];
const ask = (text) => ({ model: MODEL, max_tokens: 1000, messages: [{ role: "user", content: text }] });

await run({
  "lists models": async () => {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    holds(found, MODEL);
  },
  chats: async () => equal((await client.messages.create(ask("[[sim say Hello]]"))).content[0].text, "Hello"),
  "streams with its helper": async () => {
    const stream = client.messages.stream(ask("[[sim repeat 30]]"));
    let text = "";
    stream.on("text", (piece) => (text += piece));
    equal((await stream.finalMessage()).content[0].text, text);
    holds(text, "word30");
  },
  "streams a tool call": async () => {
    const stream = client.messages.stream({ ...ask(CALL_WEATHER), tools });
    const call = (await stream.finalMessage()).content.find((block) => block.type === "tool_use");
    equal(call.input, { city: CITY });
  },
  "runs tools with its runner": async () => {
    const get_weather = betaTool({
      name: "get_weather",
      description: "The weather of a city",
      inputSchema: input_schema,
      run: ({ city }) => `18 degrees and rain in ${city}`,
    });
    const final = await client.beta.messages.toolRunner({ ...ask(CALL_WEATHER), tools: [get_weather] });
    holds(final.content.at(-1).text, WEATHER);
  },
  "counts tokens": async () => {
    const { model, messages } = ask("Hello, world");
    const counted = await client.messages.countTokens({ model, messages, tools });
    if (!(counted.input_tokens > 10)) throw new Error(JSON.stringify(counted));
  },
});
