"""Settings of gRPC that both ends share.

Keepalive is on from both sides: without it a client behind a link that went silent notices only after half a
minute, with it after ``keepalive_timeout`` (gRPC sets TCP_USER_TIMEOUT to it). The server must allow the clients'
ping rate, or it answers with GOAWAY too_many_pings.
"""

from __future__ import annotations

from transport.limits import MAX_MESSAGE_BYTES

KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 4_000
#: A connection that has not said by then who it is, or anything, is closed.
HANDSHAKE_TIMEOUT_MS = 10_000
#: What one attempt to connect may take, in seconds: far away, TLS takes four round trips.
CONNECT_SECONDS = 2.0
#: Headers of one call. Ours are a token and what gRPC adds: some hundred bytes.
MAX_METADATA_BYTES = 8 << 10
#: Calls on one connection at a time; a gateway has many.
MAX_STREAMS = 1024


def channel_options(*, shares: bool) -> list[tuple[str, int]]:
    """For every client channel: prompt reconnects, and a dead link noticed within seconds.

    ``shares``: a connection with other channels of this process to the same address, and the pause after an attempt
    that failed; else a new channel tries at once.
    """
    return [
        ("grpc.use_local_subchannel_pool", int(not shares)),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A new channel that shares has it as well: what is gone for long is tried this often.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 500),
        # By its name of the same kind; it is what one attempt may take.
        ("grpc.min_reconnect_backoff_ms", round(1000 * CONNECT_SECONDS)),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]


def server_options() -> list[tuple[str, int]]:
    """For the server: the same keepalive, no penalty for pings, and what an unknown peer may hold of it."""
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # Two servers silently sharing a port would each get half of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]
