//! One service of Bookinfo; see `bookinfo --help`.

use clap::Parser as _;
use mesh_tests::bookinfo::{Options, run};

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(options))
}
