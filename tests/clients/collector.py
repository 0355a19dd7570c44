"""A collector of traces, on OpenTelemetry's own protobuf and gRPC's own server.

Says on its first line where it listens, then one line of JSON for each span it gets.
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

lock = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def say(line):
    with lock:
        print(json.dumps(line), flush=True)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    say(
                        {
                            "resource": attributes(resource.resource.attributes),
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "state": span.trace_state,
                            "name": span.name,
                            "kind": trace_pb2.Span.SpanKind.Name(span.kind)[len("SPAN_KIND_") :],
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "failed": span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                            "flags": span.flags,
                            "attributes": attributes(span.attributes),
                        }
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
say({"listening": f"http://127.0.0.1:{port}"})
# Ends with whoever started it.
sys.stdin.read()
server.stop(None)
