/** OpenAI's client for Node, traced by OpenInference: every helper that sets session and user, streaming, tools, errors. */
import { did, finish, refused, setUpTracing, within } from './shop.mjs'

const provider = setUpTracing()
// docs: begin openinference-js-setup
import { OpenAIInstrumentation } from '@arizeai/openinference-instrumentation-openai'
import OpenAI from 'openai'

const instrumentation = new OpenAIInstrumentation({ tracerProvider: provider })
instrumentation.manuallyInstrument(OpenAI) // modules that are imported, not required, are not found by themselves
// docs: end
const client = new OpenAI({ maxRetries: 0 })
const WEATHER = {
  type: 'function',
  function: {
    name: 'weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}

function ask(question, more = {}) {
  return client.chat.completions.create({
    model: 'gpt-4o-mini',
    messages: [{ role: 'user', content: question }],
    ...more,
  })
}

async function stream(question, more = {}) {
  let text = ''
  for await (const chunk of await ask(question, { stream: true, ...more })) {
    text += chunk.choices[0]?.delta?.content ?? ''
  }
  return text
}

async function askWithTools(question) {
  const messages = [{ role: 'user', content: question }]
  const answer = await client.chat.completions.create({ model: 'gpt-4o', messages, tools: [WEATHER] })
  const { message } = answer.choices[0]
  messages.push(message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'rain' })
  await client.chat.completions.create({ model: 'gpt-4o', messages, tools: [WEATHER] })
}

// docs: begin openinference-js-session
import { context } from '@opentelemetry/api'
import { setSession, setUser } from '@arizeai/openinference-core'

function asAda(work) {
  return context.with(setUser(setSession(context.active(), { sessionId: 's-ada' }), { userId: 'ada' }), work)
}
// docs: end

await asAda(() => ask('Which shoes for rain? [[s-ada]]'))
await asAda(() => askWithTools('And in Oslo? [[s-ada]]'))
did('s-ada', 'ada', { traces: 3 })
await refused('s-ada', 'ada', () => asAda(() => ask('fail, please [[s-ada]]')))

// docs: begin openinference-js-attributes
import { setAttributes } from '@arizeai/openinference-core'

function asGrace(work) {
  return context.with(setAttributes(context.active(), { 'session.id': 's-grace', 'user.id': 'grace' }), work)
}
// docs: end

await asGrace(() =>
  within('turn', { 'openinference.span.kind': 'CHAIN' }, async () => {
    await ask('Boots? [[s-grace]]')
    await client.responses.create({ model: 'gpt-4o', input: 'Anything cheaper? [[s-grace]]' })
    for await (const _ of await client.responses.create({ model: 'gpt-4o', input: 'Skis? [[s-grace]]', stream: true }));
  }),
)
did('s-grace', 'grace')

// Streamed chat completions, which the API tells the usage of and the instrumentation does not.
await context.with(setUser(setSession(context.active(), { sessionId: 's-linus' }), { userId: 'linus' }), () =>
  stream('Which socks? [[s-linus]]', { stream_options: { include_usage: true } }),
)
did('s-linus', 'linus')

await context.with(setUser(setSession(context.active(), { sessionId: 's-edsger' }), { userId: 'edsger' }), async () => {
  await client.embeddings.create({ model: 'text-embedding-3-small', input: 'boots [[s-edsger]]' })
  await ask('Boots? [[s-edsger]]')
})
did('s-edsger', 'edsger', { traces: 2 })
await finish(provider)
