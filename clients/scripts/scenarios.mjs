// What every Node script here uses: runs scenarios one after the other, and tells each as a line of JSON.
//   node SCRIPT.mjs URL KEY MODEL
export const [URL_, KEY, MODEL] = process.argv.slice(2, 5);
export const CITY = "Paris";
export const WEATHER = `18 degrees and rain in ${CITY}`;
export const CALL_WEATHER = `[[sim agent get_weather city=${CITY} | say The tool says: {result}]] What is the weather?`;
export const PERSON = '[[sim json {"name": "Ada", "age": 36}]] Who wrote the first program?';

export function equal(found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted))
    throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`);
}

export function holds(text, wanted) {
  const told = typeof text === "string" ? text : JSON.stringify(text);
  if (!told?.includes(wanted)) throw new Error(`${wanted} is not in ${told}`);
}

export async function run(scenarios) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario();
      console.log(JSON.stringify({ scenario: name, ok: true }));
    } catch (error) {
      console.log(JSON.stringify({ scenario: name, ok: false, detail: String(error?.stack ?? error).slice(0, 600) }));
    }
  }
}
