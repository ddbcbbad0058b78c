//! Compares the views of a machine with its model: the views show nothing that the model lacks.

use std::collections::BTreeMap;

use henge_state::{
    Action, MetaView, ShardView, State, pending_actions, time_ms, version as level_of,
};
use henge_types::limits::FORMER_TIP_MS;
use henge_types::{
    LogIndex, NetworkId, PushRules, RefProtections, RepoLimits, RepoState, ShardRepo,
    ShardRepoState,
};

use super::group::GroupModel;
use super::meta::MetaModel;
use super::mirrors::ModelMirror;
use super::networks::{ModelMark, ModelNetwork};
use super::shard::{ModelRepo, ShardModel};
use crate::draw::{NETWORKS, PATHS, REPOS};
use crate::fixtures::*;

/// All views of a shard equal the model.
pub(crate) fn compare_shard(shard: &Group, model: &ShardModel) {
    let view = shard.view();
    let repos = view.repos().map(|repo| (repo.repo, shown_repo(view, repo)));
    assert_eq!(repos.collect::<BTreeMap<_, _>>(), model.repos);
    assert_eq!(view.nonce_seed(), model.nonce_seed);
    let live: Vec<_> = model.networks.keys().copied().collect();
    assert_eq!(view.networks(), live);
    let now_ms = view.now_ms(shard.now_ms);
    assert_eq!(now_ms, model.group.now_ms(shard.now_ms));
    for id in NETWORKS.map(network) {
        let expected = model.networks.get(&id).cloned().unwrap_or_default();
        assert_eq!(shown_network(view, &id), expected);
        let members: Vec<_> = view.repos_of(&id).collect();
        assert_eq!(members, model.repos_of(&id));
        for since_ms in [0, now_ms.saturating_sub(FORMER_TIP_MS)] {
            let kept = view.kept_tips(&id, since_ms);
            assert_eq!(kept, model.kept_tips(&id, since_ms));
        }
    }
    for (id, repo) in &model.repos {
        for (tip, at_ms) in repo.iter().flat_map(|repo| &repo.lost) {
            let is_recent = now_ms.saturating_sub(*at_ms) <= FORMER_TIP_MS;
            assert_eq!(view.was_tip_recently(id, tip, now_ms), is_recent);
        }
    }
    compare_group(&shard.state, &model.group);
}

/// A live repository in its views. A dropped one has left nothing.
fn shown_repo(view: ShardView<'_, State>, repo: ShardRepo) -> Option<ModelRepo> {
    let id = repo.repo;
    let RefProtections { changed_at, rules } = view.protections(&id);
    let protected = rules.into_iter();
    let protected = protected.map(|rule| (rule.pattern, rule.created_at_ms));
    let mirrors = view.mirrors_of(&id).map(|mirror| {
        let removal = view.mirror_removal(&id, &mirror.id);
        (mirror.id, ModelMirror { mirror, removal })
    });
    let shown = ModelRepo {
        network: repo.network,
        generation: repo.generation,
        head: repo.head,
        object_format: repo.object_format,
        updated_at: repo.updated_at,
        updated_at_ms: repo.updated_at_ms,
        revision: repo.revision,
        archived: repo.archived,
        protected: protected.collect(),
        protected_at: changed_at,
        refs: view.refs(&id, "").collect(),
        lost: view.former_tips(&id).collect(),
        limits: view.limits(&id),
        rules: view.push_rules(&id),
        mirrors: mirrors.collect(),
        certificates: view.push_certificates(&id).collect(),
    };
    match repo.state {
        ShardRepoState::Live => Some(shown),
        ShardRepoState::Deleted => {
            let bare = ModelRepo {
                protected: BTreeMap::new(),
                protected_at: LogIndex::new(0),
                refs: BTreeMap::new(),
                lost: BTreeMap::new(),
                limits: RepoLimits::default(),
                rules: PushRules::default(),
                mirrors: BTreeMap::new(),
                certificates: Vec::new(),
                ..shown.clone()
            };
            assert_eq!(shown, bare);
            None
        }
    }
}

/// A network in its views; an empty one where no repository is live.
fn shown_network(view: ShardView<'_, State>, id: &NetworkId) -> ModelNetwork {
    let noted = view.lost_tips(id);
    let mark = view.prune_mark(id).map(|mark| {
        assert!(!mark.is_full, "the tips that are drawn are few");
        let mark_of_tips = ModelMark {
            at: mark.at,
            at_ms: mark.at_ms,
            lost: noted.collect(),
            may_hold_unreached: mark.may_hold_unreached,
        };
        let counted = usize::try_from(mark.lost_tips).expect("a few tips");
        assert_eq!(mark_of_tips.lost.len(), counted);
        mark_of_tips
    });
    if mark.is_none() {
        assert_eq!(view.lost_tips(id).count(), 0);
    }
    ModelNetwork {
        packs: view.packs(id).map(|pack| (pack.pack, pack)).collect(),
        mark,
        pruned_at: view.pruned_at(id),
        is_shared: view.is_shared(id),
    }
}

/// All views of the meta group equal the model.
pub(crate) fn compare_meta(meta: &Group, model: &MetaModel) {
    let view = meta.catalogue();
    assert_eq!(view.cluster(), model.cluster);
    let nodes: Vec<_> = model.nodes.values().cloned().collect();
    assert_eq!(view.nodes().collect::<Vec<_>>(), nodes);
    let placements: Vec<_> = model.placements.values().cloned().collect();
    assert_eq!(view.placements().collect::<Vec<_>>(), placements);
    assert_eq!(view.starts().collect::<BTreeMap<_, _>>(), model.starts);
    compare_repos(view, model);
    compare_names(view, model);
    compare_marks(&meta.state, model);
    compare_group(&meta.state, &model.group);
}

fn compare_repos(view: MetaView<'_, State>, model: &MetaModel) {
    for id in REPOS.map(repo_id) {
        assert_eq!(view.repo(&id).as_ref(), model.repos.get(&id));
        let forks = model.repos.values().filter(|repo| {
            let serves = repo.state == RepoState::Ready;
            serves && repo.forked_from == Some(id)
        });
        let forks: Vec<_> = forks.cloned().collect();
        assert_eq!(view.forks_of(&id).collect::<Vec<_>>(), forks);
        assert_eq!(view.untold_of(&id).as_ref(), model.untold.get(&id));
    }
}

fn compare_names(view: MetaView<'_, State>, model: &MetaModel) {
    let mut named: Vec<_> = model.named().cloned().collect();
    named.sort_by_key(|repo| repo.path.key());
    assert_eq!(view.repos(None, None, 100), named);
    for at in PATHS {
        let at = path(at);
        let key = at.key();
        assert_eq!(view.repo_by_path(&at).as_ref(), model.holder(&key));
        let former = view.repo_by_former_path(&at);
        assert_eq!(former.as_ref(), model.former_holder(&key));
        let owner = format!("{}/", at.owner).to_ascii_lowercase();
        let behind = named.iter().filter(|repo| {
            let other = repo.path.key();
            other.starts_with(&owner) && other > key
        });
        let behind: Vec<_> = behind.cloned().collect();
        let page = view.repos(Some(&at.owner), Some(key.as_str()), 100);
        assert_eq!(page, behind);
    }
}

/// The pending work of the meta group's leader is in the state.
fn compare_marks(state: &State, model: &MetaModel) {
    let view = MetaView::new(state);
    let untold = view.untold().map(|(record, mark)| (record.repo, mark));
    assert_eq!(untold.collect::<BTreeMap<_, _>>(), model.untold);
    let repos = model.repos.values();
    let unfinished = repos
        .filter(|repo| matches!(repo.state, RepoState::Reserved | RepoState::Deleting))
        .cloned();
    let unfinished: Vec<_> = unfinished.collect();
    assert_eq!(view.unfinished().collect::<Vec<_>>(), unfinished);
    let tell = model.untold.iter().map(|(repo, mark)| Action::TellShard {
        repo: *repo,
        revision: mark.revision,
    });
    let finish = unfinished.iter().map(|record| {
        let repo = record.repo;
        if record.state == RepoState::Reserved {
            Action::FinishCreate { repo }
        } else {
            Action::FinishDelete { repo }
        }
    });
    let pending: Vec<_> = tell.chain(finish).collect();
    assert_eq!(pending_actions(state), pending);
}

fn compare_group(state: &State, model: &GroupModel) {
    assert_eq!(level_of(state), model.version);
    assert_eq!(time_ms(state), model.time_ms);
}
