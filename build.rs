//! Makes Rust of `host/proto/inference.proto`, in Rust alone: no compiler of the C++ world is asked for.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=host/proto");
    let files = protox::compile(["inference.proto"], ["host/proto"])?;

    // What reflection tells a client about the service.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut described = files.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("inference.bin"), described.encode_to_vec())?;

    tonic_prost_build::configure()
        // Contents of tensors are slices of the message as it arrived.
        .bytes(".")
        // Parameters keep one order, and a map without entries costs nothing.
        .btree_map(".")
        .use_arc_self(true)
        // `ModelInfer` has a way of its own, so the service lacks it.
        .generate_default_stubs(true)
        .compile_fds(files)?;
    Ok(())
}
