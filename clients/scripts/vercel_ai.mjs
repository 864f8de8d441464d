// The Vercel AI SDK over its three providers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { CALL_WEATHER, KEY, MODEL, PERSON, URL_, WEATHER, equal, holds, run } from "./scenarios.mjs";

const baseURL = `${URL_}/v1`;
const compatible = createOpenAICompatible({
  name: "proxy",
  baseURL,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const models = {
  chat: compatible(MODEL),
  messages: createAnthropic({ baseURL, apiKey: KEY })(MODEL),
  responses: createOpenAI({ baseURL, apiKey: KEY }).responses(MODEL),
};
const get_weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `18 degrees and rain in ${city}`,
});
const schema = z.object({ name: z.string(), age: z.number() });

const BY_TOOL = '[[sim call json name="Ada" age=36]] Who wrote the first program?';

const scenarios = {};
for (const [name, model] of Object.entries(models)) {
  scenarios[`${name}: streams`] = async () => {
    const result = streamText({ model, prompt: "[[sim repeat 30]]" });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    holds(text, "word30");
  };
  scenarios[`${name}: runs a tool`] = async () => {
    const result = await generateText({
      model,
      prompt: CALL_WEATHER,
      tools: { get_weather },
      stopWhen: stepCountIs(3),
    });
    holds(result.text, WEATHER);
  };
  const asked = name === "messages" ? BY_TOOL : PERSON; // over Anthropic's API it forces a tool
  scenarios[`${name}: makes an object`] = async () =>
    equal((await generateObject({ model, schema, prompt: asked })).object, { name: "Ada", age: 36 });
}
await run(scenarios);
