"""The second service of producers with two: it calls the model, and knows nothing of sessions.

With `--baggage` it copies what the caller's baggage says onto its spans.  It serves until its standard input ends.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry import context, propagate
from opentelemetry.processor.baggage import ALLOW_ALL_BAGGAGE_KEYS, BaggageSpanProcessor
from shop import set_up_tracing

provider = set_up_tracing()
if "--baggage" in sys.argv:
    provider.add_span_processor(BaggageSpanProcessor(ALLOW_ALL_BAGGAGE_KEYS))
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = OpenAI(max_retries=0)
tracer = provider.get_tracer("backend")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["Content-Length"])).decode()
        token = context.attach(propagate.extract({name.lower(): value for name, value in self.headers.items()}))
        try:
            with tracer.start_as_current_span("POST /ask"):
                client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}])
        finally:
            context.detach(token)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    for _ in sys.stdin:  # one line for each request to come
        server.handle_request()
    provider.shutdown()


if __name__ == "__main__":
    main()
