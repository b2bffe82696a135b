"""The folders repeat the protobuf package, dragoman.v1, as buf asks."""
