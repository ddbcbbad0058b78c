//! Whether lost values of refs are still in the history of other refs.

use henge_git::{Stop, history_holds};
use henge_types::ObjectId;

use crate::{for_each_git, objects_of};

#[test]
fn what_a_ref_lost_is_held_by_those_that_grew_from_it() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "history.git");
        let work = server.path("work");
        git.work_tree(&work, 4);
        git.ok(&["switch", "-q", "-c", "side", "main~2"], &work);
        std::fs::write(work.join("side"), "side\n").unwrap();
        git.ok(&["add", "."], &work);
        git.ok(&["commit", "-q", "-m", "side"], &work);
        git.ok(&["tag", "-a", "-m", "a tag", "v1", "side"], &work);
        git.ok(&["push", "-q", &url, "main", "side", "v1"], &work);
        let objects = objects_of(&bare);
        let id = |name: &str| -> ObjectId {
            let id = git.ok(&["rev-parse", name], &work);
            id.trim().parse().unwrap()
        };
        let holds = |lost: &[&str], tips: &[&str]| {
            let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect::<Vec<_>>();
            history_holds(&objects, &ids(lost), &ids(tips), &Stop::default()).unwrap()
        };
        assert!(holds(&[], &[]));
        assert!(holds(&["main~1", "main~3", "main"], &["main"]));
        assert!(!holds(&["main~1", "side"], &["main"]));
        assert!(holds(&["main~1", "side"], &["main", "side"]));
        assert!(holds(&["side~1"], &["v1"]), "through a tag");
        assert!(!holds(&["main"], &["main~1"]));
        assert!(!holds(&["v1"], &["side"]), "the tag itself is lost");
        assert!(holds(&["v1"], &["v1"]));
        assert!(!holds(&["main^{tree}"], &["main"]), "no commit");
        let nobody = ObjectId::Sha1([7; 20]);
        assert!(!history_holds(&objects, &[nobody], &[id("main")], &Stop::default()).unwrap());
        let stopped = Stop::default();
        stopped.stop();
        let far = [id("main~3")];
        assert!(history_holds(&objects, &far, &[id("main")], &stopped).is_err());
    });
}
