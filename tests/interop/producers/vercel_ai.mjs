/** The Vercel AI SDK with its own telemetry: tools over several steps, streaming, embeddings and errors. */
import { did, finish, refused, setUpTracingAsTold, within } from './shop.mjs'

const provider = await setUpTracingAsTold() // the SDK takes the global tracer provider
// docs: begin vercel-ai
import { openai } from '@ai-sdk/openai'
import { generateText } from 'ai'

function telemetry(sessionId, userId) {
  return { isEnabled: true, functionId: 'chat', metadata: { sessionId, userId } }
}

await generateText({
  model: openai('gpt-4o-mini'),
  prompt: 'Which shoes for rain? [[s-ada]]',
  experimental_telemetry: telemetry('s-ada', 'ada'), // in each call: nothing hands it on
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

await generateText({
  model: openai.chat('gpt-4o'),
  prompt: 'And in Oslo? [[s-ada]]',
  tools,
  stopWhen: stepCountIs(3),
  experimental_telemetry: telemetry('s-ada', 'ada'),
})
did('s-ada', 'ada', { traces: 2 })
await refused('s-ada', 'ada', () =>
  generateText({
    model: openai.chat('gpt-4o'),
    prompt: 'fail, please [[s-ada]]',
    maxRetries: 0,
    experimental_telemetry: telemetry('s-ada', 'ada'),
  }),
)

// One trace of a turn, with a stream over several steps and another one below it.
await within('turn', {}, async () => {
  for (const [model, prompt] of [
    [openai('gpt-4o'), 'Skis? [[s-grace]]'],
    [openai.chat('gpt-4o-mini'), 'Anything cheaper? [[s-grace]]'],
  ]) {
    const stream = streamText({
      model,
      prompt,
      tools,
      stopWhen: stepCountIs(3),
      experimental_telemetry: telemetry('s-grace', 'grace'),
    })
    await stream.consumeStream()
  }
})
did('s-grace', 'grace')

await embed({
  model: openai.embedding('text-embedding-3-small'),
  value: 'boots [[s-edsger]]',
  experimental_telemetry: telemetry('s-edsger', 'edsger'),
})
await embedMany({
  model: openai.embedding('text-embedding-3-small'),
  values: ['skis [[s-edsger]]', 'socks'],
  experimental_telemetry: telemetry('s-edsger', 'edsger'),
})
did('s-edsger', 'edsger', { traces: 2 })
await finish(provider)
