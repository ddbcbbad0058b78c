//! Commands of a shard from a proposer that has read the state: they name existing things.

use henge_state::{ShardView, State};
use henge_types::{
    BeginMirror, ForkRepo, Generation, LogIndex, Mirror, MirrorId, MirrorPusher, MirrorWord,
    NetworkId, ObjectFormat, ObjectId, PackId, PreviousValue, RecordMirror, RepoId, ShardCommand,
    ShardRepo, ShardRepoState, UpdateRefs,
};

type View<'v> = ShardView<'v, State>;

/// Replaces drawn values by those in the view; `last` is the last applied entry.
pub(super) fn aim(command: &mut ShardCommand, view: View<'_>, last: LogIndex) {
    match command {
        // They use nothing of the state, or name a new repository.
        ShardCommand::CreateRepo { .. }
        | ShardCommand::DropRepo { .. }
        | ShardCommand::SetNonceSeed(_) => {}
        ShardCommand::SetHead {
            repo, generation, ..
        }
        | ShardCommand::SetLimits {
            repo, generation, ..
        }
        | ShardCommand::SetPushRules {
            repo, generation, ..
        }
        | ShardCommand::ProtectRefs {
            repo, generation, ..
        } => aim_life(view, repo, generation),
        ShardCommand::UnprotectRefs {
            repo,
            generation,
            pattern,
        } => {
            aim_life(view, repo, generation);
            if let Some(rule) = view.protections(repo).rules.into_iter().next() {
                *pattern = rule.pattern;
            }
        }
        ShardCommand::ConfigureRepo(settings) => {
            aim_life(view, &mut settings.repo, &mut settings.generation);
        }
        ShardCommand::ForkRepo(fork) => aim_fork(view, fork),
        ShardCommand::UpdateRefs(push) => aim_push(view, push, last),
        ShardCommand::UpdateSignedRefs(signed) => aim_push(view, &mut signed.push, last),
        ShardCommand::ReplacePacks(replace) => {
            let new = replace.new.pack;
            aim_exchange(view, &mut replace.network, &mut replace.old, Some(new));
        }
        ShardCommand::MarkUnreachable {
            network,
            instead_of,
            ..
        } => {
            aim_network(view, network);
            *instead_of = view.prune_mark(network).map(|mark| mark.at);
        }
        ShardCommand::PrunePacks(prune) => {
            let new = prune.new.as_ref().map(|new| new.pack);
            aim_exchange(view, &mut prune.network, &mut prune.old, new);
            prune.walked_at = last;
            if let Some(mark) = view.prune_mark(&prune.network) {
                prune.marked_at = mark.at;
            }
        }
        ShardCommand::SetMirror(set) => aim_life(view, &mut set.repo, &mut set.generation),
        ShardCommand::EditMirror(edit) => {
            aim_mirror(view, &mut edit.repo, &mut edit.mirror, |_| true);
            aim_life(view, &mut edit.repo, &mut edit.generation);
        }
        ShardCommand::ChangeMirror(change) => {
            aim_mirror(view, &mut change.repo, &mut change.mirror, |_| true);
            aim_life(view, &mut change.repo, &mut change.generation);
        }
        ShardCommand::BeginMirror(begin) => aim_begin(view, begin),
        ShardCommand::RecordMirror(record) => aim_record(view, record),
    }
}

/// A live repository, this one if possible, and its generation.
fn aim_life(view: View<'_>, repo: &mut RepoId, generation: &mut Generation) {
    let is_live = |repo: &ShardRepo| repo.state == ShardRepoState::Live;
    let named = view.repo(repo).filter(is_live);
    if let Some(found) = named.or_else(|| view.repos().find(is_live)) {
        *repo = found.repo;
        *generation = found.generation;
    }
}

fn aim_network(view: View<'_>, network: &mut NetworkId) {
    if !view.network_is_live(network)
        && let Some(live) = view.networks().first()
    {
        *network = *live;
    }
}

/// Packs of the manifest: these if it names them, else another one.
fn aim_exchange(
    view: View<'_>,
    network: &mut NetworkId,
    old: &mut Vec<PackId>,
    new: Option<PackId>,
) {
    aim_network(view, network);
    let network = *network;
    old.retain(|pack| Some(*pack) != new && view.pack(&network, pack).is_some());
    if old.is_empty() {
        let named = view.packs(&network).map(|record| record.pack);
        old.extend(named.filter(|pack| Some(*pack) != new).take(1));
    }
}

/// A mirror that satisfies `is_wanted`: this one if possible.
fn aim_mirror(
    view: View<'_>,
    repo: &mut RepoId,
    mirror: &mut MirrorId,
    is_wanted: fn(&Mirror) -> bool,
) -> Option<Mirror> {
    let named = view.mirror(repo, mirror).filter(is_wanted);
    let found = named.or_else(|| view.mirrors().find(is_wanted))?;
    *repo = found.repo;
    *mirror = found.id;
    Some(found)
}

/// A fork in the network of its parent.
fn aim_fork(view: View<'_>, fork: &mut ForkRepo) {
    let mut generation = fork.generation;
    aim_life(view, &mut fork.parent, &mut generation);
    if let Some(parent) = view.repo(&fork.parent) {
        fork.network = parent.network;
    }
}

/// The due run of a mirror that does not run.
fn aim_begin(view: View<'_>, begin: &mut BeginMirror) {
    let rests = |mirror: &Mirror| mirror.run.is_none();
    let found = aim_mirror(view, &mut begin.repo, &mut begin.mirror, rests);
    if let Some(mirror) = found {
        begin.scheduled_at_ms = mirror.next_due_ms;
    }
}

/// The fence of a run in progress, and the entry of its permission to remove.
fn aim_record(view: View<'_>, record: &mut RecordMirror) {
    let runs = |mirror: &Mirror| mirror.run.is_some();
    let found = aim_mirror(view, &mut record.repo, &mut record.mirror, runs);
    let Some(mirror) = found else {
        return;
    };
    record.fence = mirror.fence;
    if let MirrorWord::CameThrough { since } = &mut record.word
        && let Some(removal) = view.mirror_removal(&mirror.repo, &mirror.id)
    {
        *since = removal.since;
    }
}

/// A push that was checked at the last entry: from the present values of refs, in the hash of the
/// repository.
fn aim_push(view: View<'_>, push: &mut UpdateRefs, last: LogIndex) {
    aim_life(view, &mut push.repo, &mut push.generation);
    push.checked_at = last;
    let Some(repo) = view.repo(&push.repo) else {
        return;
    };
    for update in &mut push.updates {
        update.new = update.new.map(|new| in_format(&new, repo.object_format));
        if let PreviousValue::MustExistAndMatch(expected) = &mut update.expected
            && let Some(value) = view.ref_value(&repo.repo, &update.name)
        {
            *expected = value;
        }
    }
    for pack in &mut push.packs {
        pack.pack = PackId::new(in_format(pack.pack.checksum(), repo.object_format));
    }
    let is_of_mirror = MirrorPusher::parse(&push.pusher).is_some();
    let mut mirrors = view.mirrors_of(&repo.repo);
    if let Some(running) = mirrors.find(|mirror| is_of_mirror && mirror.run.is_some()) {
        let (mirror, fence) = (running.id, running.fence);
        push.pusher = MirrorPusher { mirror, fence }.to_string();
    }
}

/// The value with the same bytes in this hash.
fn in_format(id: &ObjectId, format: ObjectFormat) -> ObjectId {
    let byte = id.as_bytes().first().copied().unwrap_or_default();
    match format {
        ObjectFormat::Sha1 => ObjectId::Sha1([byte; 20]),
        ObjectFormat::Sha256 => ObjectId::Sha256([byte; 32]),
    }
}
