//! A group without its shell, and short constructors of ids and commands.

use bytes::Bytes;
use henge_state::{Effect, Header, MetaView, Outcome, ShardView, State, apply};
use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::{
    ClusterId, Command, ConfigureRepo, CreateRepo, EditRepo, Generation, GroupId, Incarnation,
    InlinePack, LogIndex, MetaCommand, NetworkId, NodeId, NodeRecord, ObjectFormat, ObjectId,
    PackId, PackRef, PreviousValue, RefName, RefPattern, RefRefusal, RefUpdate, RefVerdict,
    ReplacePacks, Reply, RepoId, RepoPath, RequestBinding, RequestId, ShardCommand, ShardPlacement,
    Topic, UpdateRefs,
};

/// 2026-01-01, milliseconds.
pub(crate) const START_MS: u64 = 1_767_225_600_000;
/// The seed of every entry.
pub(crate) const SEED: u64 = 99;

/// One group: its state, and the position of its log.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) group: GroupId,
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) now_ms: u64,
}

impl Group {
    pub(crate) fn meta() -> Self {
        Self::new(GroupId::META)
    }

    pub(crate) fn shard() -> Self {
        Self::new(GroupId::new(1))
    }

    /// A group that keeps its own time from its first entry on.
    pub(crate) fn keeping_time(mut self) -> Self {
        let version = VERSION_STARTS_AND_TIME;
        assert_eq!(self.reply(Command::VersionBarrier { version }), Reply::Done);
        self
    }

    fn new(group: GroupId) -> Self {
        Self {
            group,
            state: State::empty(),
            index: 0,
            now_ms: START_MS,
        }
    }

    /// Applies and commits one entry. Checks after every entry: the outcome does not depend on the
    /// run, its writes are in order without duplicates, the maintained hash equals the computed
    /// one, and the reply is of a kind in the command's row.
    pub(crate) fn run(&mut self, command: impl Into<Command>) -> Outcome {
        self.run_for(None, command)
    }

    pub(crate) fn run_for(
        &mut self,
        request: Option<RequestBinding>,
        command: impl Into<Command>,
    ) -> Outcome {
        let command = command.into();
        let header = self.header(request);
        let outcome = apply(&self.state, &header, &command);
        assert_eq!(outcome, apply(&self.state, &header, &command));
        let keys: Vec<_> = outcome.writes.iter().map(|write| &write.key).collect();
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
        self.state.commit(&outcome.writes);
        assert_eq!(self.state.hash(), self.state.recompute_hash());
        // The tests bind one request id to several commands: the reply may belong to another one.
        let recorded = header.request.is_some();
        let allowed = command.reply_kind().allows(&outcome.reply);
        assert!(recorded || allowed, "{command:?}: {:?}", outcome.reply);
        outcome
    }

    /// Moves the proposer's clock, forward or back.
    pub(crate) fn advance(&mut self, step_ms: i64) {
        self.now_ms = self.now_ms.saturating_add_signed(step_ms);
    }

    /// The header of the next entry.
    pub(crate) fn header(&mut self, request: Option<RequestBinding>) -> Header {
        self.index += 1;
        Header {
            group: self.group,
            index: LogIndex::new(self.index),
            term: 3,
            proposed_at_ms: self.now_ms,
            seed: SEED,
            request,
        }
    }

    pub(crate) fn reply(&mut self, command: impl Into<Command>) -> Reply {
        self.run(command).reply
    }

    pub(crate) fn catalogue(&self) -> MetaView<'_, State> {
        MetaView::new(&self.state)
    }

    pub(crate) fn view(&self) -> ShardView<'_, State> {
        ShardView::new(&self.state)
    }

    /// Applies an entry and expects only a reply, without writes and effects.
    pub(crate) fn nothing_but(&mut self, command: impl Into<Command>, reply: Reply) {
        let outcome = self.run(command);
        assert_eq!(
            outcome,
            Outcome {
                reply,
                writes: Vec::new(),
                effects: Vec::<Effect>::new(),
            }
        );
    }
}

pub(crate) fn repo_id(number: u8) -> RepoId {
    RepoId::from_bytes([number; 16])
}

pub(crate) fn network(number: u8) -> NetworkId {
    repo_id(number).root_network()
}

pub(crate) fn oid(number: u8) -> ObjectId {
    ObjectId::Sha1([number; 20])
}

pub(crate) fn name(text: &str) -> RefName {
    text.parse().expect("a valid ref name")
}

pub(crate) fn path(text: &str) -> RepoPath {
    text.parse().expect("a valid path")
}

pub(crate) fn node(number: u8) -> NodeRecord {
    NodeRecord {
        node: NodeId::new(u64::from(number)),
        incarnation: Incarnation::from_bytes([number; 16]),
        rpc: format!("127.0.0.1:744{number}"),
        http: format!("127.0.0.1:740{number}"),
    }
}

pub(crate) fn placement(group: u32, replicas: &[u64]) -> ShardPlacement {
    ShardPlacement {
        group: GroupId::new(group),
        replicas: replicas.iter().copied().map(NodeId::new).collect(),
        epoch: 1,
    }
}

pub(crate) fn form_cluster() -> Command {
    Command::Meta(MetaCommand::FormCluster {
        cluster: ClusterId::from_bytes([0xc1; 16]),
        replication: 3,
        nodes: vec![node(1), node(2), node(3)],
        placements: vec![placement(1, &[1, 2, 3]), placement(2, &[2, 3, 1])],
    })
}

pub(crate) fn new_repo(number: u8, at: &str) -> CreateRepo {
    CreateRepo {
        repo: repo_id(number),
        network: network(number),
        path: path(at),
        default_branch: name("refs/heads/main"),
        private: false,
        description: "a line".to_owned(),
        object_format: ObjectFormat::Sha1,
        forked_from: None,
    }
}

pub(crate) fn reserve(number: u8, at: &str) -> Command {
    Command::Meta(MetaCommand::ReserveRepo(new_repo(number, at)))
}

pub(crate) fn mark_ready(number: u8) -> Command {
    let repo = repo_id(number);
    Command::Meta(MetaCommand::MarkRepoReady { repo })
}

pub(crate) fn abandon(number: u8) -> Command {
    let repo = repo_id(number);
    Command::Meta(MetaCommand::AbandonRepo { repo })
}

pub(crate) fn delete(number: u8) -> Command {
    let repo = repo_id(number);
    Command::Meta(MetaCommand::DeleteRepo { repo })
}

pub(crate) fn mark_dropped(number: u8) -> Command {
    let repo = repo_id(number);
    Command::Meta(MetaCommand::MarkRepoDropped { repo })
}

pub(crate) const FIRST: Generation = Generation::new(1);

/// Creates a repository of its own network.
pub(crate) fn create(number: u8) -> Command {
    create_in(number, number)
}

pub(crate) fn create_in(number: u8, network_of: u8) -> Command {
    Command::Shard(ShardCommand::CreateRepo {
        repo: repo_id(number),
        network: network(network_of),
        generation: FIRST,
        head: name("refs/heads/main"),
        object_format: ObjectFormat::Sha1,
    })
}

pub(crate) fn drop_repo(number: u8) -> Command {
    let repo = repo_id(number);
    Command::Shard(ShardCommand::DropRepo { repo })
}

pub(crate) fn set_head(number: u8, head: &str) -> Command {
    Command::Shard(ShardCommand::SetHead {
        repo: repo_id(number),
        generation: FIRST,
        head: name(head),
    })
}

pub(crate) fn topic(text: &str) -> Topic {
    text.parse().expect("a valid topic")
}

pub(crate) fn pattern(text: &str) -> RefPattern {
    text.parse().expect("a valid pattern")
}

pub(crate) fn edit(edit: EditRepo) -> Command {
    Command::Meta(MetaCommand::EditRepo(edit))
}

pub(crate) fn rename(number: u8, to: &str) -> Command {
    edit(EditRepo {
        path: Some(path(to)),
        ..EditRepo::nothing(repo_id(number))
    })
}

pub(crate) fn mark_told(number: u8, revision: u64) -> Command {
    Command::Meta(MetaCommand::MarkRepoTold {
        repo: repo_id(number),
        revision: LogIndex::new(revision),
    })
}

/// Settings of a repository: the first ones, modified by `change`.
pub(crate) fn configure(
    number: u8,
    revision: u64,
    change: impl FnOnce(&mut ConfigureRepo),
) -> Command {
    let mut settings = ConfigureRepo {
        repo: repo_id(number),
        generation: FIRST,
        revision: LogIndex::new(revision),
        archived: false,
        head: None,
    };
    change(&mut settings);
    Command::Shard(ShardCommand::ConfigureRepo(settings))
}

pub(crate) fn protect(number: u8, refs: &str) -> Command {
    Command::Shard(ShardCommand::ProtectRefs {
        repo: repo_id(number),
        generation: FIRST,
        pattern: pattern(refs),
    })
}

pub(crate) fn unprotect(number: u8, refs: &str) -> Command {
    Command::Shard(ShardCommand::UnprotectRefs {
        repo: repo_id(number),
        generation: FIRST,
        pattern: pattern(refs),
    })
}

/// A push of one pack to repository `number`.
pub(crate) fn push(number: u8, updates: Vec<RefUpdate>) -> UpdateRefs {
    UpdateRefs {
        repo: repo_id(number),
        generation: FIRST,
        packs: vec![pack(0x70)],
        updates,
        atomic: false,
        pusher: "admin".to_owned(),
        options: vec!["ci.skip".to_owned()],
        checked_at: LogIndex::new(1),
    }
}

pub(crate) fn atomic(number: u8, updates: Vec<RefUpdate>) -> Command {
    let push = UpdateRefs {
        atomic: true,
        ..push(number, updates)
    };
    refs(push)
}

pub(crate) fn refs(push: UpdateRefs) -> Command {
    Command::Shard(ShardCommand::UpdateRefs(push))
}

/// Replaces packs of the network of repository `number`.
pub(crate) fn replace(number: u8, old: &[u8], new: u8) -> Command {
    Command::Shard(ShardCommand::ReplacePacks(ReplacePacks {
        network: network(number),
        old: old.iter().map(|old| pack(*old).pack).collect(),
        new: pack(new),
    }))
}

pub(crate) fn pack(number: u8) -> PackRef {
    PackRef {
        pack: PackId::new(oid(number)),
        pack_bytes: 4,
        idx_bytes: 3,
        objects: 2,
        inline: Some(InlinePack {
            pack: Bytes::from_static(b"PACK"),
            idx: Bytes::from_static(b"idx"),
        }),
    }
}

pub(crate) fn update(at: &str, expected: PreviousValue, new: Option<u8>) -> RefUpdate {
    RefUpdate {
        name: name(at),
        expected,
        new: new.map(oid),
    }
}

pub(crate) fn to_create(at: &str, new: u8) -> RefUpdate {
    update(at, PreviousValue::MustNotExist, Some(new))
}

pub(crate) fn to_move(at: &str, old: u8, new: u8) -> RefUpdate {
    let expected = PreviousValue::MustExistAndMatch(oid(old));
    update(at, expected, Some(new))
}

pub(crate) fn to_delete(at: &str, old: u8) -> RefUpdate {
    let expected = PreviousValue::MustExistAndMatch(oid(old));
    update(at, expected, None)
}

pub(crate) fn verdict(at: &str, old: Option<u8>, result: Result<(), RefRefusal>) -> RefVerdict {
    RefVerdict {
        name: name(at),
        old: old.map(oid),
        result,
    }
}

pub(crate) fn verdicts(verdicts: Vec<RefVerdict>) -> Reply {
    Reply::RefsUpdated { verdicts }
}

/// A request of a group that keeps its own time, whose id names this generation.
pub(crate) fn binding_in(generation: u64, counter: u64) -> RequestBinding {
    let request = binding(0, counter);
    RequestBinding {
        id: request.id.in_generation(generation),
        ..request
    }
}

pub(crate) fn binding(made_at_ms: u64, counter: u64) -> RequestBinding {
    RequestBinding {
        id: RequestId {
            made_at_ms,
            incarnation: Incarnation::from_bytes([1; 16]),
            counter,
        },
        principal: "admin".to_owned(),
        repo: Some(repo_id(1)),
        digest: [0xd1; 32],
    }
}
