//! One service of the bank; see `bank --help`.

use clap::Parser as _;
use mesh_tests::bank::{Options, run};

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(options))
}
