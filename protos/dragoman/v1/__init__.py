"""Version 1 of the protocol. Generated: dragoman_pb2 and dragoman_pb2_grpc."""
