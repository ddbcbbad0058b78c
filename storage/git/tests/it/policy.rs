//! The requests that clients may make, as configured by a repository's owner.

use henge_git::{
    AcceptedWants, BareRepository, FetchError, FetchLimits, FetchPolicy, Protocol, Service,
    advertise_peeled, upload_pack,
};

use crate::raw::{fetch, line};
use crate::{for_each_git, objects_of};

#[test]
fn wants_are_accepted_as_the_policy_says() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "policy.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main"], &work);
        let loose = server.path("loose");
        std::fs::write(&loose, "nobody refers to this\n").unwrap();
        let unreachable = git.ok(&["hash-object", "-w", loose.to_str().unwrap()], &bare);
        let id = |name: &str| git.ok(&["rev-parse", name], &work);
        let wants = [
            (AcceptedWants::Tips, id("main")),
            (AcceptedWants::Reachable, id("main~1")),
            (AcceptedWants::Reachable, id("main~2:a/b/c0/deep.txt")),
            (AcceptedWants::Any, unreachable),
        ];
        let repository = BareRepository::open(&bare).unwrap();
        let objects = objects_of(&bare);
        for accepted in [
            AcceptedWants::Tips,
            AcceptedWants::Reachable,
            AcceptedWants::Any,
        ] {
            let limits = FetchLimits {
                policy: FetchPolicy {
                    wants: accepted,
                    ..FetchPolicy::default()
                },
                ..FetchLimits::default()
            };
            for (needed, want) in &wants {
                let mut output = Vec::new();
                let outcome = upload_pack(
                    &repository,
                    &objects,
                    Protocol::V2,
                    &mut &fetch(want)[..],
                    &mut output,
                    &limits,
                );
                let is_refused = matches!(outcome, Err(FetchError::NotOurRef { .. }));
                assert_eq!(
                    is_refused,
                    accepted < *needed,
                    "{accepted:?}: {want}, {outcome:?}"
                );
            }
        }
    });
}

#[test]
fn filters_that_are_off_are_neither_offered_nor_taken() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "off.git");
        let work = server.path("work");
        git.work_tree(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        let head = git.ok(&["rev-parse", "main"], &work);
        let repository = BareRepository::open(&bare).unwrap();
        let objects = objects_of(&bare);
        let mut body = line("command=fetch\n");
        body.extend_from_slice(b"0001");
        for text in [
            format!("want {head}"),
            "filter blob:none".to_owned(),
            "done".to_owned(),
        ] {
            body.extend(line(&text));
        }
        body.extend_from_slice(b"0000");
        for filter in [true, false] {
            let policy = FetchPolicy {
                filter,
                ..FetchPolicy::default()
            };
            for protocol in [Protocol::V0, Protocol::V2] {
                let mut listing = Vec::new();
                let service = Service::UploadPack;
                advertise_peeled(
                    &repository,
                    &objects,
                    service,
                    protocol,
                    policy,
                    &mut listing,
                )
                .unwrap();
                let listing = String::from_utf8_lossy(&listing).into_owned();
                assert_eq!(listing.contains(" filter"), filter, "{listing}");
            }
            let limits = FetchLimits {
                policy,
                ..FetchLimits::default()
            };
            let mut output = Vec::new();
            let outcome = upload_pack(
                &repository,
                &objects,
                Protocol::V2,
                &mut &body[..],
                &mut output,
                &limits,
            );
            assert_eq!(outcome.is_ok(), filter, "{outcome:?}");
        }
    });
}
