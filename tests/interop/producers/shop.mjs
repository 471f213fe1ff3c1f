/**
 * What all JavaScript producers have in common, as shop.py is for Python: the tracing set-up, and a word at the end.
 *
 * Where to export to, and the resource with the project, come from OpenTelemetry's own variables.
 */
import { context, trace } from '@opentelemetry/api'
import { OTLPTraceExporter as OverGrpc } from '@opentelemetry/exporter-trace-otlp-grpc'
// docs: begin set-up-js
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { detectResources, envDetector } from '@opentelemetry/resources'
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node'

/** The tracer provider, made the global one as well. */
export function setUpTracing(processor = new BatchSpanProcessor(new OTLPTraceExporter())) {
  const provider = new NodeTracerProvider({
    resource: detectResources({ detectors: [envDetector] }), // OTEL_RESOURCE_ATTRIBUTES
    spanProcessors: [processor],
  })
  provider.register()
  return provider
}
// docs: end

const sessions = {}

/** Set up for the protocol that OpenTelemetry's variable names, with OpenInference's processor where we are told so. */
export async function setUpTracingAsTold() {
  const grpc = process.env.OTEL_EXPORTER_OTLP_PROTOCOL === 'grpc'
  const exporter = grpc ? new OverGrpc({ url: process.env.INTEROP_GRPC_ENDPOINT }) : new OTLPTraceExporter()
  const module = process.env.INTEROP_SPAN_PROCESSOR
  if (!module) return setUpTracing(new BatchSpanProcessor(exporter))
  const { OpenInferenceBatchSpanProcessor } = await import(module)
  return setUpTracing(new OpenInferenceBatchSpanProcessor({ exporter }))
}

/** Do it within a span of the application's own. */
export async function within(name, attributes, work) {
  const span = trace.getTracer('shop').startSpan(name, { attributes })
  try {
    return await context.with(trace.setSpan(context.active(), span), work)
  } finally {
    span.end()
  }
}

/** Note what a session did; `user` is the first that it ever had. */
export function did(session, user, { traces = 1, errorTraces = 0 } = {}) {
  sessions[session] ??= { project: 'shop', user, traces: 0, error_traces: 0 }
  sessions[session].traces += traces
  sessions[session].error_traces += errorTraces
}

/** A turn that the API must refuse. */
export async function refused(session, user, work) {
  did(session, user, { errorTraces: 1 })
  try {
    await work()
  } catch {
    return // each client has an error of its own
  }
  throw new Error('the API should have refused')
}

/** Export what is left and tell what was done. */
export async function finish(provider) {
  await provider.shutdown()
  console.log(JSON.stringify({ sessions }))
}
