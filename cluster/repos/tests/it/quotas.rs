//! Quotas hold for concurrent pushes, each of which would fit alone.

use henge_types::{PreviousValue, RefUpdate, RepoLimits, RepoPath};

use crate::ring::{ADMIN, Ring, Work};

const REPO: &str = "admin/quota";
const PUSHERS: usize = 6;

fn path() -> RepoPath {
    REPO.parse().unwrap()
}

async fn limited(ring: &Ring, limits: RepoLimits) -> Work {
    let work = ring.work_dir("first");
    work.commit("first", b"first\n");
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let repos = &ring.node(1).repos;
    repos.set_limits(&ADMIN, &path(), limits).await.unwrap();
    work
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_at_the_same_time_cannot_exceed_the_bytes_together() {
    let ring = Ring::start().await;
    let max = 1_500_000;
    let limits = RepoLimits {
        network_bytes_max: Some(max),
        ..RepoLimits::default()
    };
    limited(&ring, limits).await;
    let pushers = (0..PUSHERS).map(|at| {
        let work = ring.work_dir(&format!("pusher-{at}"));
        let url = ring.url(1 + at % 3, REPO);
        work.commit_large("large");
        async move {
            let refs = format!("main:refs/heads/pusher-{at}");
            work.try_git(&["push", &url, &refs]).await
        }
    });
    let pushed = futures::future::join_all(pushers).await;
    let taken = pushed.iter().filter(|(taken, _)| *taken).count();
    assert!((1..PUSHERS).contains(&taken), "{pushed:?}");
    for (taken, said) in &pushed {
        let why = format!("the repository may hold {max} bytes of packs, holds ");
        assert!(*taken || said.contains(&why), "{said}");
    }
    let stats = ring.node(2).repos.stats(&path()).await.unwrap();
    let bytes = stats.pack_bytes + stats.idx_bytes;
    assert!(bytes <= max, "{bytes} bytes of {max}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_api_at_the_same_time_cannot_exceed_the_refs_together() {
    let ring = Ring::start().await;
    let limits = RepoLimits {
        refs_max: Some(3),
        ..RepoLimits::default()
    };
    let work = limited(&ring, limits).await;
    let main = work.now(&["rev-parse", "main"]).trim().parse().unwrap();
    let pushers = (0..PUSHERS).map(|at| {
        let (url, work) = (ring.url(1 + at % 3, REPO), &work);
        async move {
            let refs = format!("main:refs/heads/pusher-{at}");
            work.try_git(&["push", &url, &refs]).await
        }
    });
    let update = RefUpdate {
        name: "refs/heads/api".parse().unwrap(),
        expected: PreviousValue::MustNotExist,
        new: Some(main),
    };
    let repos = &ring.node(3).repos;
    let path = path();
    let of_api = repos.update_refs(&ADMIN, &path, vec![update], false);
    let (pushed, of_api) = tokio::join!(futures::future::join_all(pushers), of_api);
    let of_api = of_api.unwrap().remove(0).result;
    let taken = pushed.iter().filter(|(taken, _)| *taken).count();
    assert_eq!(
        taken + usize::from(of_api.is_ok()),
        2,
        "{pushed:?} {of_api:?}"
    );
    for (taken, said) in &pushed {
        let why = "the repository may hold 3 refs: delete some first";
        assert!(*taken || said.contains(why), "{said}");
    }
    let refs = repos.refs(&path, "refs/").await.unwrap().refs;
    assert_eq!(refs.len(), 3);
}
