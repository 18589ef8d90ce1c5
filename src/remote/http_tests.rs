//! The client of Bazel's HTTP cache against a server that does what each test says.
