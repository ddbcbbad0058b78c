//! Our own API, `/api/henge/v1`: the features that Gitea lacks. A file for each feature has its
//! routes and handlers; [`henge_client::model`] has the JSON bodies.

mod certificates;
mod cluster;
mod fsck;
mod limits;
mod mirrors;
mod packs;
mod refs;
mod repos;

use crate::routes::Routes;

/// The routes of every feature.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .merge(certificates::routes())
        .merge(cluster::routes())
        .merge(fsck::routes())
        .merge(limits::routes())
        .merge(mirrors::routes())
        .merge(packs::routes())
        .merge(refs::routes())
        .merge(repos::routes())
}
