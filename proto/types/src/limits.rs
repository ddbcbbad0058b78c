//! Every bound of the product, in one place. Bytes unless the name says otherwise.

/// The name of an owner or of a repository.
pub const NAME_BYTES_MAX: usize = 100;
/// A full ref name.
pub const REF_NAME_BYTES_MAX: usize = 1024;
/// Ref updates in one push.
pub const REF_UPDATES_MAX: usize = 10_000;
/// Shards of a cluster.
pub const SHARDS_MAX: u32 = 256;
/// Shards of a cluster, where the operator sets no other number.
pub const SHARDS_DEFAULT: u32 = 64;
/// Replicas of a group.
pub const REPLICATION_DEFAULT: usize = 3;
/// Nodes that `henge dev` starts at most: ports are laid out for them.
pub const DEV_NODES_MAX: u64 = 19;

/// A completed pack and its index together: up to this size they are stored inside the log entry.
pub const INLINE_PACK_BYTES_MAX: usize = 128 * 1024;
/// Packs that one entry replaces.
pub const PACKS_REPLACED_MAX: usize = 1024;
/// Tips that the refs of a network have lost since its mark for dropping unreachable objects, at
/// most.
pub const LOST_TIPS_MAX: u32 = 200_000;
/// One log entry, encoded.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries per read of the log and per AppendEntries, together.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Handshakes under way on the cluster's port, from one address.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 128;
/// The same, from all addresses that are no member's.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 512;
/// The duration of one of them, milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Bytes that one of them may send over QUIC before the node accepts it.
pub const HANDSHAKE_QUIC_BYTES_MAX: u64 = 64 * 1024;
/// One control message between nodes.
pub const RPC_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// One push as received; the bound of the spool.
pub const PUSH_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Bytes that are read of a refused push: a client reads the refusal only after its upload.
pub const REFUSED_PUSH_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Free space that the spool of pushes leaves on its disk, where no watermark is configured.
pub const SPOOL_FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The body of a fetch or ls-refs request after inflating.
pub const FETCH_REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The body of an API request.
pub const API_BODY_BYTES_MAX: usize = 1024 * 1024;
/// The body of an API request that changes refs: [`REF_UPDATES_MAX`] of them fit, if their names
/// fit into one log entry.
pub const REF_UPDATES_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The duration of an API request, milliseconds: longer than the wait for a quorum, so that the
/// node that detects "no quorum" reports it.
pub const API_REQUEST_MS_MAX: u64 = QUORUM_WAIT_MS + 2_000;
/// A repository's description.
pub const DESCRIPTION_BYTES_MAX: usize = 2048;
/// A topic of a repository.
pub const TOPIC_BYTES_MAX: usize = 35;
/// Topics of a repository.
pub const TOPICS_MAX: usize = 25;
/// A pattern of protected refs.
pub const REF_PATTERN_BYTES_MAX: usize = 255;
/// Patterns of protected refs of a repository.
pub const REF_PROTECTIONS_MAX: usize = 50;
/// Former names of a repository that still redirect to it.
pub const FORMER_PATHS_MAX: usize = 16;
/// Items on one page of a list: a request for more gets this many.
pub const PAGE_ITEMS_MAX: usize = 50;
/// Items on one page of a list, where the request names no number.
pub const PAGE_ITEMS_DEFAULT: usize = 30;
/// Branches in one answer to a request without pages.
pub const BRANCHES_UNPAGED_MAX: usize = 10_000;
/// Repositories in one answer of the catalogue.
pub const CATALOGUE_ITEMS_MAX: usize = 1_000;
/// Objects in one pushed pack.
pub const PACK_OBJECTS_MAX: u32 = 20_000_000;
/// One object, inflated, in a pushed pack. It has to be in memory.
pub const OBJECT_BYTES_MAX: u64 = 480 * 1024 * 1024;
/// Bytes that the objects of a pushed pack may have together, per byte of the pack.
pub const PACK_INFLATED_RATIO_MAX: u64 = 1024;
/// Bytes that they may have beyond that: many versions of one large file make a small pack.
pub const PACK_INFLATED_BYTES_FREE: u64 = 16 * 1024 * 1024 * 1024;
/// Memory to resolve a delta of a pushed pack, and to read it again: the delta bases kept for other
/// deltas, the delta, and twice the larger of its base and its result.
pub const DELTA_RESOLVED_BYTES_MAX: u64 = 448 * 1024 * 1024;
/// Deltas from an object in a pushed pack to the whole one at the end of its chain: as many as git
/// makes at most.
pub const DELTA_DEPTH_MAX: u32 = 4095;
/// Directories from the top of a pushed tree down to its deepest one: git's own bound
/// (core.maxTreeDepth).
pub const TREE_DEPTH_MAX: usize = 2048;
/// One pushed tree object: about a million entries in one directory.
pub const TREE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Entries of one page of a directory.
pub const READ_ENTRIES_MAX: usize = 1_000;
/// Names on such a page, together.
pub const READ_NAMES_BYTES_MAX: usize = 1024 * 1024;
/// A path that is looked up in a tree, and one that a comparison of trees reports.
pub const READ_PATH_BYTES_MAX: usize = 4096;
/// A file that is read as a whole.
pub const READ_BLOB_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The message of a commit; the rest is cut off.
pub const READ_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The name and the email address of an author or committer; the rest of each is cut off.
pub const READ_PERSON_BYTES_MAX: usize = 1024;
/// Commits of one page of a log.
pub const LOG_COMMITS_MAX: usize = 250;
/// Commits that are walked for one page of a log.
pub const LOG_WALKED_MAX: usize = 10_000;
/// Commits of the cursor behind a page of a log: the number of parallel lines of history there.
pub const LOG_PENDING_MAX: usize = 4_096;
/// Changed paths of one comparison of two trees.
pub const DIFF_CHANGES_MAX: usize = 3_000;
/// Entries that differ in one comparison of two trees, directories included.
pub const DIFF_COMPARED_MAX: usize = 100_000;
/// Paths of these entries, together.
pub const DIFF_PATHS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A blob that is compared line by line.
pub const DIFF_BLOB_BYTES_MAX: u64 = 1024 * 1024;
/// Its lines. The comparison cannot be stopped: with so many it takes half a second at most.
pub const DIFF_LINES_MAX: usize = 50_000;
/// Deleted paths that are compared with as many added ones to find renames: git's default.
pub const RENAME_CANDIDATES_MAX: usize = 1_000;
/// Blobs that are read to find the renames of one comparison, together.
pub const RENAME_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Chunks of these blobs that are compared: some tenths of a second.
pub const RENAME_CHUNKS_MAX: u64 = 100_000_000;
/// A file that is blamed, in each of its versions.
pub const BLAME_BLOB_BYTES_MAX: u64 = 1024 * 1024;
/// Commits that a blame follows.
pub const BLAME_COMMITS_MAX: usize = 20_000;

/// A segment of the write-ahead log.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// All segments of the write-ahead log together.
pub const WAL_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Records in memory for readers that follow the tail.
pub const WAL_TAIL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Operations waiting for the log's writer.
pub const WAL_QUEUE_MAX: usize = 4096;
/// Bytes in one batch of the log's writer.
pub const WAL_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Zero-filled segments of the write-ahead log kept ready, so that a full disk does not stop
/// appends soon.
pub const WAL_SPARES: usize = 2;
/// Segments of the write-ahead log, at most, that are reserved for urgent entries when it is full:
/// votes, a new leader's first entry, changes of membership and release level. An eighth of the log
/// where that is less.
pub const WAL_RESERVE_SEGMENTS_MAX: usize = 8;
/// From the end of a group on a node to its next start there, milliseconds; doubled with every
/// further end.
pub const GROUP_RESTART_MS_MIN: u64 = 5_000;
/// The maximum of that time, milliseconds.
pub const GROUP_RESTART_MS_MAX: u64 = 5 * 60 * 1000;
/// The log of all groups of a node since their snapshots, which a restart reads again; or half of
/// the snapshots' size where that is more.
pub const LOG_SINCE_SNAPSHOTS_BYTES: u64 = 64 * 1024 * 1024;
/// Snapshots that a node takes at once.
pub const SNAPSHOTS_AT_ONCE: usize = 2;
/// From a snapshot that could not be taken to the next try, milliseconds; doubled with every
/// further failure.
pub const SNAPSHOT_RETRY_MS_MIN: u64 = 10_000;
/// The maximum of that time, milliseconds.
pub const SNAPSHOT_RETRY_MS_MAX: u64 = 5 * 60 * 1000;
/// The time of one round over the latest snapshots of all groups of a node, which compares them
/// with their checksums, milliseconds.
pub const SNAPSHOT_CHECK_ROUND_MS: u64 = 10 * 60 * 1000;
/// Bytes of snapshots that the round reads in a second, at most. At this rate a round over many
/// snapshots takes longer.
pub const SNAPSHOT_CHECK_BYTES_PER_S: u64 = 8_000_000;
/// A group's log entries since its last snapshot: bounds replay when entries are tiny.
pub const SNAPSHOT_LOG_ENTRIES: u64 = 500_000;
/// Log entries kept behind a snapshot, so that a follower with a small lag needs no snapshot.
pub const LOG_ENTRIES_KEPT: u64 = 1_000;
/// Bytes of these entries, per group.
pub const LOG_BYTES_KEPT: u64 = 8 * 1024 * 1024;

/// Free space below which a node takes no large packs: the larger of this and
/// [`LOW_SPACE_PERCENT`].
pub const LOW_SPACE_BYTES: u64 = 1024 * 1024 * 1024;
/// The same in percent of the file system.
pub const LOW_SPACE_PERCENT: u64 = 5;

/// The least lifetime of a request's record, milliseconds, below the release level of replicated
/// time.
pub const REQUEST_RECORD_MS_MIN: u64 = 24 * 60 * 60 * 1000;
/// Expired request records removed by one apply.
pub const REQUEST_RECORDS_EXPIRED_PER_APPLY: usize = 8;
/// The time that one generation of request records covers, milliseconds of the group's time. A
/// record is found for at least as long, unless [`REQUEST_GENERATION_BYTES_MAX`] ends its
/// generation earlier. It is far longer than the retries of a receiving node.
pub const REQUEST_GENERATION_MS: u64 = 15 * 60 * 1000;
/// Keys and values of request records in one generation of a group: about 40,000 pushes of one ref.
/// A group keeps two generations and, for a while, the rest of the one before: 12 MiB at most. One
/// group takes at most 6,000 small writes a second, so a record is found for at least 7 s, as long
/// as a node retries without a leader.
pub const REQUEST_GENERATION_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Obsolete request records that one apply removes, at least; it also removes twice the bytes that
/// it adds.
pub const REQUEST_RECORDS_DRAINED_PER_APPLY: usize = 4;
/// The same for one step of the group's time.
pub const REQUEST_RECORDS_DRAINED_PER_STEP: usize = 256;

/// The step by which one entry moves its group's time, at most, milliseconds.
pub const TIME_STEP_MS_MAX: u64 = 60 * 60 * 1000;
/// The precision of a group's time, milliseconds.
pub const TIME_KEPT_MS: u64 = 1000;
/// The distance of a node's clock from the median of all members' clocks, milliseconds. Beyond it
/// the node proposes nothing.
pub const CLOCK_SKEW_MS_MAX: u64 = 5 * 60 * 1000;
/// The age of a reading of another node's clock that may move a group's time, at most,
/// milliseconds.
pub const CLOCK_READING_MS_MAX: u64 = 5 * 1000;
/// Clocks in one step of a group's time.
pub const CLOCKS_MAX: usize = 64;

/// The time for which a fetch may still want a former tip, milliseconds.
pub const FORMER_TIP_MS: u64 = 10 * 60 * 1000;
/// Former tips removed by one apply.
pub const FORMER_TIPS_EXPIRED_PER_APPLY: usize = 64;

/// The time within which a request that needs a quorum is answered, milliseconds; without a quorum
/// the answer is "no quorum".
pub const QUORUM_WAIT_MS: u64 = 8_000;
/// Pushes that a node handles at once.
pub const PUSHES_AT_ONCE: usize = 64;
/// The duration of one fetch or push at most, milliseconds: a large clone on a slow line takes
/// long.
pub const GIT_REQUEST_MS_MAX: u64 = 2 * 60 * 60 * 1000;
/// The idle time-out of a client in the middle of a git request, milliseconds: it sends nothing of
/// the request, or reads nothing of the answer.
pub const CLIENT_REST_MS_MAX: u64 = 5 * 60 * 1000;
/// The time for the body of a fetch to arrive, milliseconds. It is held in memory meanwhile.
pub const FETCH_REQUEST_MS_MAX: u64 = 5 * 60 * 1000;
/// The same without a token.
pub const ANONYMOUS_FETCH_REQUEST_MS_MAX: u64 = 30 * 1000;
/// The time for which the client of one HTTP/2 request may read nothing of the answer,
/// milliseconds: pings do not count.
pub const ANSWER_REST_MS_MAX: u64 = 60 * 1000;
/// Client connections at once. At this number idle ones are closed for new ones.
pub const CONNECTIONS_MAX: usize = 1024;
/// Further connections, which may only request `/healthz`, `/readyz` and `/metrics`.
pub const CONNECTIONS_KEPT_FOR_HEALTH: usize = 32;
/// Of these, the connections of one address.
pub const CONNECTIONS_KEPT_PER_ADDRESS: usize = 16;
/// Bytes of a fetch's answer that are produced before the client has read the earlier ones.
pub const ANSWER_BYTES_AHEAD: usize = 1024 * 1024;
/// Bytes that a node holds for clients at once: bodies of requests, listings of refs, and parts of
/// answers that are not sent yet.
pub const CLIENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Of these, the bytes held for clients without a token.
pub const ANONYMOUS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a request waits for memory, milliseconds.
pub const CLIENT_BYTES_WAIT_MS: u64 = 5 * 1000;
/// The duration of the check of one network's store on a replica, milliseconds.
pub const CHECK_MS_MAX: u64 = 6 * 60 * 60 * 1000;
/// Checks of stores that wait on a node.
pub const CHECKS_ASKED_MAX: usize = 256;
/// The first bytes of an answer to a fetch that are held back: until they are sent, another node
/// can answer instead.
pub const ANSWER_HELD_BYTES_MAX: u64 = 1024 * 1024;
/// The time for which a store is not read through again, milliseconds, after an error caused a read
/// of all of it that found no damage.
pub const STORE_SOUND_MS: u64 = 10 * 60 * 1000;
/// Packs that a node checks in one step of its round over all of them; a step a second.
pub const PACKS_LOOKED_AT_PER_STEP: usize = 100;
/// Problems of a store that are listed one by one.
pub const CHECK_PROBLEMS_MAX: usize = 100;
/// Fetches that a node handles at once.
pub const FETCHES_AT_ONCE: usize = 64;
/// Further fetches, which wait for an equal one's answer, or receive it.
pub const FETCHES_WAITING_MAX: usize = 128;
/// Fetches without a token that a node handles or lets wait at once.
pub const ANONYMOUS_FETCHES_AT_ONCE: usize = 32;
/// The same of one address.
pub const ANONYMOUS_FETCHES_PER_ADDRESS: usize = 24;
/// The same of one connection.
pub const ANONYMOUS_FETCHES_PER_CONNECTION: usize = 8;
/// The processing time of a fetch without a token, milliseconds: waits for a permit, for an equal
/// answer and for the client do not count.
pub const ANONYMOUS_FETCH_WORK_MS_MAX: u64 = 60 * 1000;
/// Requests without a token that a node answers at once, fetches left out.
pub const ANONYMOUS_REQUESTS_AT_ONCE: usize = 64;
/// Tokens of one kind that are valid at once: the current one, and its predecessor or successor.
pub const TOKENS_MAX: usize = 2;
/// Wrong tokens of one address that are answered at once; each further one waits longer.
pub const WRONG_TOKENS_FREE: u32 = 4;
/// The longest of these waits, milliseconds.
pub const WRONG_TOKEN_DELAY_MS_MAX: u64 = 2_000;
/// Requests with a wrong token that wait at once; more are answered without a wait, and their
/// connections end.
pub const WRONG_TOKENS_WAITING_MAX: usize = 64;
/// The same of one address.
pub const WRONG_TOKENS_WAITING_PER_ADDRESS: usize = 8;
/// The same of one connection.
pub const WRONG_TOKENS_WAITING_PER_CONNECTION: usize = 4;
/// Addresses for which wrong tokens are counted.
pub const WRONG_TOKEN_ADDRESSES_MAX: usize = 4_096;
/// Requests without a token that one address may have at once, fetches left out.
pub const ANONYMOUS_REQUESTS_PER_ADDRESS: usize = 48;
/// The same of one connection.
pub const ANONYMOUS_REQUESTS_PER_CONNECTION: usize = 16;
/// Ref advertisements without a token that a node makes at once.
pub const ANONYMOUS_LISTINGS_AT_ONCE: usize = 8;
/// The same of one address.
pub const ANONYMOUS_LISTINGS_PER_ADDRESS: usize = 4;
/// The same of one connection.
pub const ANONYMOUS_LISTINGS_PER_CONNECTION: usize = 2;
/// The time for which a further one waits for a permit, milliseconds. At most as many wait as
/// there are permits.
pub const ANONYMOUS_LISTING_WAIT_MS: u64 = 1_000;
/// Fetches without a token whose body a node reads at once.
pub const ANONYMOUS_BODIES_AT_ONCE: usize = 256;
/// The same of one address.
pub const ANONYMOUS_BODIES_PER_ADDRESS: usize = 128;
/// The same of one connection.
pub const ANONYMOUS_BODIES_PER_CONNECTION: usize = 16;
/// The size from which a bundle is offered, where the operator sets no other one.
pub const BUNDLE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Refs that a bundle covers. A bundle of a repository with more branches and tags covers only the
/// branch that HEAD names.
pub const BUNDLE_REFS_MAX: usize = 10_000;
/// Bytes of one bundle that are in a file of its own, and not in packs.
pub const BUNDLE_OWN_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bundles that a node keeps.
pub const BUNDLES_MAX: usize = 64;
/// Disk space of the bundles of a node together: their own bytes and packs that were replaced
/// since.
pub const BUNDLES_DISK_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bundles of a node that wait to be made, together with the one in work.
pub const BUNDLES_WAITING_MAX: usize = 16;
/// The time that a bundle is kept after its last request, milliseconds.
pub const BUNDLE_KEPT_MS: u64 = 60 * 60 * 1000;
/// The age from which a bundle is replaced because the refs changed, milliseconds.
pub const BUNDLE_REFRESH_MS: u64 = 15 * 60 * 1000;
/// The time for which a client's request for bundles waits for one in work, milliseconds: less than
/// a node waits for the next byte of another one.
pub const BUNDLE_WAIT_MS: u64 = 8 * 1000;
/// Blocking jobs (git work, file work) that a node runs at once.
pub const BLOCKING_JOBS_MAX: usize = 64;

/// One push certificate, its signature included: about two thousand refs.
pub const PUSH_CERTIFICATE_BYTES_MAX: usize = 256 * 1024;
/// The signer of a push certificate and the URL that it names, each, in the record beside the text.
pub const CERTIFICATE_IDENT_BYTES_MAX: usize = 1024;
/// Push certificates that a repository keeps; the oldest are removed.
pub const PUSH_CERTIFICATES_KEPT_MAX: usize = 100;
/// Their stored bytes together; the oldest are removed, the newest stays.
pub const PUSH_CERTIFICATES_KEPT_BYTES_MAX: usize = 1024 * 1024;
/// The age of a push certificate's nonce in a cluster, at most, seconds (`receive.certNonceSlop` of
/// plain repositories): people type passphrases between advertisement and push.
pub const CERTIFICATE_NONCE_SLOP_S: u64 = 10 * 60;

/// Mirrors of one repository.
pub const MIRRORS_MAX: usize = 16;
/// The URL of a mirror.
pub const MIRROR_URL_BYTES_MAX: usize = 2048;
/// User and password of a mirror together.
pub const MIRROR_SECRET_BYTES_MAX: usize = 4096;
/// The time from one due run of a mirror to the next, at least, milliseconds.
pub const MIRROR_INTERVAL_MS_MIN: u64 = 60 * 1000;
/// The maximum of that time: a year.
pub const MIRROR_INTERVAL_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// The longest lease of a mirror's run without a heartbeat, milliseconds.
pub const MIRROR_LEASE_MS_MAX: u64 = 10 * 60 * 1000;
/// The stored reason of a failed run.
pub const MIRROR_REASON_BYTES_MAX: usize = 500;
/// Runs of mirrors on one node at once, at most.
pub const MIRRORS_AT_ONCE_MAX: usize = 64;

/// Conditions of one kind that a node keeps: a damaged disk has as many as it has packs.
pub const CONDITIONS_KEPT_PER_KIND_MAX: usize = 1024;
/// Conditions in one node's report; the rest are counted.
pub const CONDITIONS_REPORTED_MAX: usize = 100;
/// The subject of a condition.
pub const CONDITION_SUBJECT_BYTES_MAX: usize = 256;
/// The detail of a condition.
pub const CONDITION_DETAIL_BYTES_MAX: usize = 512;

/// Starts that a node's data directory records beside the last registered one. At the bound a start
/// uses the last drawn id again.
pub const STARTS_DRAWN_MAX: usize = 64;
