//! How the server identifies itself to clients of the protocol, over HTTP and gRPC.

/// The platform of every model, which the protocol requires.
pub(in crate::server) const PLATFORM: &str = "hostler";

/// The name of the server. Programs written for Triton, including its public examples, exit if it
/// is another.
pub(in crate::server) const SERVER_NAME: &str = "triton";

/// The extensions of the protocol that are offered, by Triton's names.
pub(in crate::server) const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
];
