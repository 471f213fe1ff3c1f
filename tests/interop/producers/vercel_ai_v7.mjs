/** The Vercel AI SDK 7, whose telemetry is a package of its own: tools over several steps, streams, embeddings, errors. */
import { did, finish, refused, setUpTracingAsTold, within } from './shop.mjs'

const provider = await setUpTracingAsTold() // the SDK takes the global tracer provider
// docs: begin vercel-ai-7
import { OpenTelemetry } from '@ai-sdk/otel'
import { openai } from '@ai-sdk/openai'
import { generateText, registerTelemetry } from 'ai'

registerTelemetry(
  new OpenTelemetry({
    enrichSpan: ({ runtimeContext }) => ({ 'session.id': runtimeContext?.sessionId, 'user.id': runtimeContext?.userId }),
  }),
)

function conversation(sessionId, userId) {
  return {
    runtimeContext: { sessionId, userId },
    telemetry: { includeRuntimeContext: { sessionId: true, userId: true } }, // else `enrichSpan` does not get them
  }
}

await generateText({
  model: openai('gpt-4o-mini'),
  prompt: 'Which shoes for rain? [[s-ada]]',
  ...conversation('s-ada', 'ada'), // in each call: nothing hands it on
})
// docs: end
import { embed, embedMany, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'

const tools = {
  weather: tool({
    description: 'the weather in a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async () => 'rain',
  }),
}
const stopWhen = stepCountIs(3)

await generateText({
  model: openai.chat('gpt-4o'),
  prompt: 'And in Oslo? [[s-ada]]',
  tools,
  stopWhen,
  ...conversation('s-ada', 'ada'),
})
did('s-ada', 'ada', { traces: 2 })
await refused('s-ada', 'ada', () =>
  generateText({
    model: openai.chat('gpt-4o'),
    prompt: 'fail, please [[s-ada]]',
    maxRetries: 0,
    ...conversation('s-ada', 'ada'),
  }),
)

// One trace of a turn, with a stream over several steps and another one below it.
await within('turn', {}, async () => {
  for (const [model, prompt] of [
    [openai('gpt-4o'), 'Skis? [[s-grace]]'],
    [openai.chat('gpt-4o-mini'), 'Anything cheaper? [[s-grace]]'],
  ]) {
    await streamText({ model, prompt, tools, stopWhen, ...conversation('s-grace', 'grace') }).consumeStream()
  }
})
did('s-grace', 'grace')

const model = openai.embedding('text-embedding-3-small')
await embed({ model, value: 'boots [[s-edsger]]', ...conversation('s-edsger', 'edsger') })
await embedMany({ model, values: ['skis [[s-edsger]]', 'socks'], ...conversation('s-edsger', 'edsger') })
did('s-edsger', 'edsger', { traces: 2 })
await finish(provider)
