//! The version barrier.

use henge_state::version;
use henge_types::command::VERSION_KNOWN;
use henge_types::{Command, Reply};

use crate::fixtures::*;

fn barrier(version: u32) -> Command {
    Command::VersionBarrier { version }
}

#[test]
fn a_known_level_is_recorded_where_it_is_new() {
    for mut group in [Group::shard(), Group::meta()] {
        assert_eq!(version(&group.state), 1);
        assert_eq!(group.reply(barrier(VERSION_KNOWN)), Reply::Done);
        assert_eq!(version(&group.state), VERSION_KNOWN);
        group.nothing_but(barrier(0), Reply::Done);
        assert_eq!(version(&group.state), VERSION_KNOWN);
    }
    let mut meta = Group::meta();
    meta.run(form_cluster());
    meta.run(barrier(VERSION_KNOWN));
    let cluster = meta.catalogue().cluster().expect("it is formed");
    assert_eq!(cluster.version, VERSION_KNOWN);
}

#[test]
#[should_panic(expected = "group 1 stops: it needs release level")]
fn an_unknown_level_stops_a_shard() {
    Group::shard().run(barrier(VERSION_KNOWN + 1));
}

#[test]
#[should_panic(expected = "group 0 stops")]
fn an_unknown_level_stops_meta() {
    Group::meta().run(barrier(u32::MAX));
}
