//! `hostler jobs reset`

use super::arguments::Reset;
use crate::error::{Error, Kind, Result};
use crate::output;
use serde::Deserialize;

pub async fn run(reset: Reset) -> Result<bool> {
    #[derive(Deserialize)]
    struct SetAside {
        set_aside: String,
    }
    let mut client = reset.host.client()?;
    if !reset.yes {
        return Err(Error::invalid(format!(
            "nothing was done. This command lets the host on {} move the files of its damaged store of jobs into a \
             folder beside them, and begin with an empty store: the jobs in these files are gone from the host. A \
             store that is not damaged stays as it is. Run it again with --yes",
            client.address()
        )));
    }
    let SetAside { set_aside } =
        client.post_json("/admin/jobs/reset").await.map_err(|error| match error.kind() {
            Kind::Conflict | Kind::Unsupported => error.context("nothing was reset"),
            _ => error,
        })?;
    output::print(format_args!(
        "the store is empty; its damaged files are in the folder {set_aside} within its own"
    ));
    Ok(true)
}
