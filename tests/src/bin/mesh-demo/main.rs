mod edges;
mod manifests;
mod wire;
fn main() {}
