"""The wire of Dragoman: one .proto file, and the Python stubs that protos/generate.sh makes of it."""
