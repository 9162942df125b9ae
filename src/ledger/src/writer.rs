//! The one thread that writes: group commit.
//!
//! While a transaction is on its way to the disk, requests gather; the next transaction takes them
//! all, each in a savepoint of its own, so that what fails takes back only itself. Nobody hears an
//! answer before its transaction is durable.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chancery_protocol::audit::Event;
use chancery_protocol::ipc::store::Reply;
use rusqlite::{Connection, TransactionBehavior};

use crate::change::{self, Order};
use crate::check::Violation;
use crate::error::StoreError;
use crate::log::{Log, Pen};
use crate::mirror::Mark;
use crate::reservation;

/// Most requests in one transaction. Each waits with a worker, so there are never more of them.
const GROUP: usize = 256;

/// Time between two rounds of tidying.
const TIDY: Duration = Duration::from_secs(60);

/// Rows tidied in one transaction; requests come between two.
const TIDY_ROWS: u32 = 200;

/// Unix seconds.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// An answer that is durable, or the rule that the request broke.
pub(crate) type Verdict = Result<Reply, Violation>;

struct Job {
    order: Order,
    verdict: SyncSender<Verdict>,
}

/// Where workers leave their orders.
#[derive(Clone)]
pub(crate) struct Counter(SyncSender<Job>);

impl Counter {
    /// Hands in an order and waits until it is durable or refused.
    pub(crate) fn submit(&self, order: Order) -> Verdict {
        let (verdict, answer) = sync_channel(1);
        if self.0.send(Job { order, verdict }).is_err() {
            return Ok(unavailable(&StoreError::Stopping));
        }
        answer
            .recv()
            .unwrap_or_else(|_| Ok(unavailable(&StoreError::Stopping)))
    }
}

/// The owner of the writing connection.
pub(crate) struct Writer {
    connection: Connection,
    log: Log,
    clock: Clock,
    actor: String,
    mark: Mark,
    stored_mark: u64,
    committed: SyncSender<()>,
}

impl Writer {
    /// `actor` stands in the ledger's own records; `committed` hears of every commit.
    pub(crate) fn new(
        connection: Connection,
        log: Log,
        clock: Clock,
        actor: String,
        mark: Mark,
        committed: SyncSender<()>,
    ) -> Self {
        Self {
            connection,
            log,
            clock,
            actor,
            stored_mark: mark.get(),
            mark,
            committed,
        }
    }

    /// Starts the thread. It ends when every [`Counter`] is gone, and gives the writer back.
    pub(crate) fn start(self) -> std::io::Result<(Counter, JoinHandle<Self>)> {
        let (sender, jobs) = sync_channel(GROUP);
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || self.run(&jobs))?;
        Ok((Counter(sender), thread))
    }

    /// Records an event of the ledger itself.
    pub(crate) fn record(&mut self, event: &Event) -> Result<(), StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        Pen::new(&transaction, &self.log, &self.actor, (self.clock)())?.record(event)?;
        let stored_mark = self.mark.store(&transaction)?;
        transaction.commit()?;
        self.stored_mark = stored_mark;
        self.announce();
        Ok(())
    }

    /// Lets the mirror send the last records, makes its mark durable and closes the database.
    pub(crate) fn close(self, mirror: Option<JoinHandle<()>>) -> Result<(), StoreError> {
        drop(self.committed);
        if mirror.is_some_and(|mirror| mirror.join().is_err()) {
            tracing::error!("the mirror panicked; journald gets the rest at the next start");
        }
        self.mark.store(&self.connection)?;
        self.connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    fn run(mut self, jobs: &Receiver<Job>) -> Self {
        let mut next_tidy = Instant::now();
        loop {
            match jobs.recv_timeout(next_tidy.saturating_duration_since(Instant::now())) {
                Ok(first) => self.commit(&gather(first, jobs)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self,
            }
            if Instant::now() >= next_tidy {
                let pause = match self.tidy() {
                    Ok(true) => Duration::ZERO,
                    Ok(false) => TIDY,
                    Err(error) => {
                        tracing::error!(%error, "overdue reservations and old answers stay for now");
                        TIDY
                    }
                };
                next_tidy = Instant::now() + pause;
            }
        }
    }

    fn commit(&mut self, jobs: &[Job]) {
        let verdicts = match self.transact(jobs) {
            Ok(verdicts) => {
                self.announce();
                verdicts
            }
            Err(error) => {
                tracing::error!(%error, requests = jobs.len(), "nothing was written");
                jobs.iter().map(|_| Ok(unavailable(&error))).collect()
            }
        };
        for (job, verdict) in jobs.iter().zip(verdicts) {
            // A worker that has gone cannot be told; a repetition finds the answer.
            let _ = job.verdict.send(verdict);
        }
    }

    /// Applies all orders in one transaction. An error means that none is written.
    fn transact(&mut self, jobs: &[Job]) -> Result<Vec<Verdict>, StoreError> {
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut verdicts = Vec::with_capacity(jobs.len());
        for Job { order, .. } in jobs {
            let savepoint = transaction.savepoint()?;
            match change::apply(&savepoint, &self.log, (self.clock)(), order) {
                Ok(reply) => {
                    savepoint.commit()?;
                    verdicts.push(Ok(reply));
                }
                // A full disk, for one, ends the whole transaction, not the savepoint alone.
                Err(error) if savepoint.is_autocommit() => return Err(error),
                Err(error) => {
                    savepoint.finish()?;
                    verdicts.push(refusal(&error, order));
                }
            }
        }
        if self.mark.get() != self.stored_mark {
            self.stored_mark = self.mark.store(&transaction)?;
        }
        transaction.commit()?;
        Ok(verdicts)
    }

    /// Abandons overdue intents and forgets old answers. Whether there may be more of either.
    fn tidy(&mut self) -> Result<bool, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut pen = Pen::new(&transaction, &self.log, &self.actor, (self.clock)())?;
        let abandoned = reservation::abandon(&mut pen, TIDY_ROWS)?;
        let pruned = change::prune(&transaction, pen.time, TIDY_ROWS)?;
        self.mark.store(&transaction)?;
        transaction.commit()?;
        if abandoned > 0 {
            tracing::warn!(
                abandoned,
                "reservations without a certificate were abandoned"
            );
            self.announce();
        }
        Ok([abandoned, pruned]
            .iter()
            .any(|&rows| u32::try_from(rows) == Ok(TIDY_ROWS)))
    }

    /// Wakes the mirror. One word waiting is enough, and without a mirror nobody listens.
    fn announce(&self) {
        let _ = self.committed.try_send(());
    }
}

/// The first job and all that wait behind it.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    std::iter::once(first)
        .chain(jobs.try_iter().take(GROUP - 1))
        .collect()
}

fn refusal(error: &StoreError, order: &Order) -> Verdict {
    if let StoreError::WriteId = error {
        return Err(Violation::WriteId);
    }
    tracing::error!(%error, actor = order.actor, "a request was not written");
    Ok(unavailable(error))
}

fn unavailable(error: &StoreError) -> Reply {
    Reply::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use chancery_protocol::audit::{Kind, Outcome};
    use der::asn1::Null;

    use super::*;
    use crate::change::Order;
    use crate::database;
    use crate::reservation::LIFE;
    use crate::testing::{Bench, NOW, append, commit, count, order, put_challenge, reserve};
    use crate::{check::Change, log};

    fn job(order: Order) -> (Job, Receiver<Verdict>) {
        let (verdict, answer) = sync_channel(1);
        (Job { order, verdict }, answer)
    }

    fn commit_all(writer: &mut Writer, orders: Vec<Order>) -> Vec<Verdict> {
        let (jobs, answers): (Vec<_>, Vec<_>) = orders.into_iter().map(job).unzip();
        writer.commit(&jobs);
        answers
            .iter()
            .map(|answer| answer.try_recv().unwrap())
            .collect()
    }

    fn is_unavailable(verdict: &Verdict, part: &str) -> bool {
        matches!(verdict, Ok(Reply::Unavailable(text)) if text.contains(part))
    }

    #[test]
    fn what_waits_is_committed_together() {
        let (sender, jobs) = sync_channel(GROUP + 10);
        let mut answers = Vec::new();
        for n in 0..=GROUP as u64 {
            let (job, answer) = job(order(append(n, Kind::TokenReady)));
            sender.send(job).unwrap();
            answers.push(answer);
        }
        let first = jobs.recv().unwrap();
        assert_eq!(gather(first, &jobs).len(), GROUP);
        let first = jobs.recv().unwrap();
        assert_eq!(gather(first, &jobs).len(), 1);
    }

    #[test]
    fn nobody_sees_a_change_before_its_commit_and_everybody_after() {
        let idle = Bench::started().into_writer(NOW);
        let reader = database::open_reader(&idle.path).unwrap();
        let mut writer = idle.writer;
        let records = "SELECT count(*) FROM records";
        let transaction = writer.connection.transaction().unwrap();
        let order = order(append(1, Kind::TokenReady));
        change::apply(&transaction, &writer.log, NOW, &order).unwrap();
        assert_eq!(count(&reader, records), 1);
        transaction.commit().unwrap();
        assert_eq!(count(&reader, records), 2);
    }

    #[test]
    fn one_refused_request_does_not_spoil_the_others() {
        let mut bench = Bench::started();
        bench.apply(NOW, append(1, Kind::TokenReady));
        let mut idle = bench.into_writer(NOW);
        let verdicts = commit_all(
            &mut idle.writer,
            vec![
                order(put_challenge(2, "a")),
                order(put_challenge(3, "a")),
                order(append(1, Kind::SealBroken)),
                order(Change::Reserve(reserve(4, "a", 1, "key", "host", &[1]))),
                order(Change::Reserve(reserve(5, "a", 1, "other", "other", &[2]))),
                order(commit(6, &[1], "certificate")),
            ],
        );
        assert!(matches!(verdicts[0], Ok(Reply::Done(_))));
        assert!(is_unavailable(&verdicts[1], "exists already"));
        assert!(matches!(verdicts[2], Err(Violation::WriteId)));
        assert!(matches!(verdicts[3], Ok(Reply::Reserved(_))));
        assert!(matches!(verdicts[4], Ok(Reply::Spent(Null))));
        assert!(matches!(verdicts[5], Ok(Reply::Committed(_))));
        let reader = database::open_reader(&idle.path).unwrap();
        let kinds: Vec<Kind> = log::entries(&reader, 2, 9)
            .unwrap()
            .iter()
            .map(|(record, _)| record.event.kind)
            .collect();
        assert_eq!(
            kinds,
            [Kind::ChallengeMinted, Kind::IssueIntent, Kind::IssueDone]
        );
        idle.news.try_recv().unwrap();
    }

    #[test]
    fn a_full_disk_writes_nothing_and_is_named() {
        let mut idle = Bench::started().into_writer(NOW);
        let pages = |writer: &Writer| -> i64 {
            writer
                .connection
                .pragma_query_value(None, "page_count", |row| row.get(0))
                .unwrap()
        };
        let limit = |writer: &Writer, pages: i64| {
            writer
                .connection
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
                .unwrap();
        };
        let now = pages(&idle.writer);
        limit(&idle.writer, now);
        let mut big = reserve(2, "a", 9, "key", "host", &[1]);
        big.row.body = crate::testing::octets(&[7; 60_000]);
        let orders = || {
            vec![
                order(put_challenge(1, "a")),
                order(Change::Reserve(big.clone())),
                order(append(3, Kind::TokenReady)),
            ]
        };
        for verdict in commit_all(&mut idle.writer, orders()) {
            assert!(is_unavailable(&verdict, "free space"), "{verdict:?}");
        }
        let reader = database::open_reader(&idle.path).unwrap();
        assert_eq!(count(&reader, "SELECT count(*) FROM records"), 1);
        assert!(idle.news.try_recv().is_err());
        limit(&idle.writer, now + 1000);
        let verdicts = commit_all(&mut idle.writer, orders());
        assert!(matches!(verdicts[1], Ok(Reply::Reserved(_))));
        assert!(matches!(verdicts[2], Ok(Reply::Appended(_))));
    }

    #[test]
    fn a_locked_database_is_unavailable_and_then_serves() {
        let mut idle = Bench::started().into_writer(NOW);
        idle.writer.connection.busy_timeout(Duration::ZERO).unwrap();
        let other = database::open_writer(&idle.path, crate::testing::ORIGIN).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let orders = || vec![order(append(1, Kind::TokenReady))];
        let verdicts = commit_all(&mut idle.writer, orders());
        assert!(is_unavailable(&verdicts[0], "end the other program"));
        other.execute_batch("ROLLBACK").unwrap();
        let verdicts = commit_all(&mut idle.writer, orders());
        assert!(matches!(verdicts[0], Ok(Reply::Appended(_))));
    }

    #[test]
    fn a_clock_that_went_back_stops_writing_until_it_is_right() {
        let mut idle = Bench::started().into_writer(NOW - 61);
        let orders = || vec![order(append(1, Kind::TokenReady))];
        let verdicts = commit_all(&mut idle.writer, orders());
        assert!(is_unavailable(
            &verdicts[0],
            "if the clock is behind, correct it"
        ));
        assert!(idle.writer.tidy().is_err());
        idle.now.store(NOW - 60, Ordering::SeqCst);
        let verdicts = commit_all(&mut idle.writer, orders());
        assert!(matches!(verdicts[0], Ok(Reply::Appended(_))));
    }

    #[test]
    fn tidying_abandons_and_forgets() {
        let mut bench = Bench::new();
        bench.apply(NOW, put_challenge(1, "a"));
        bench.apply(
            NOW,
            Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])),
        );
        let mut idle = bench.into_writer(NOW + LIFE);
        assert!(!idle.writer.tidy().unwrap());
        idle.news.try_recv().unwrap();
        let connection = &idle.writer.connection;
        assert_eq!(count(connection, "SELECT count(*) FROM writes"), 0);
        assert_eq!(count(connection, "SELECT state FROM certificates"), 2);
        let (record, _) = log::entries(connection, 2, 1).unwrap().remove(0);
        assert_eq!(record.event.kind, Kind::IssueAbandoned);
        assert_eq!(record.actor, "ledger uid=1 pid=1");
    }

    #[test]
    fn the_thread_tidies_answers_and_gives_the_writer_back() {
        let mut bench = Bench::new();
        bench.apply(NOW, put_challenge(1, "a"));
        bench.apply(
            NOW,
            Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])),
        );
        let writing = bench.write(NOW + LIFE);
        // The first tidying comes with the start, in whichever order to the first request.
        let late = writing.counter.submit(order(append(3, Kind::TokenReady)));
        assert!(matches!(late, Ok(Reply::Appended(_))));
        let reader = writing.reader();
        let path = writing.path.clone();
        let (mut writer, _folder) = writing.end();
        assert_eq!(count(&reader, "SELECT state FROM certificates"), 2);
        writer
            .record(&Event::new(Kind::ServiceStopped, Outcome::Success))
            .unwrap();
        let records = log::entries(&reader, 0, 99).unwrap();
        assert_eq!(records.last().unwrap().0.event.kind, Kind::ServiceStopped);
        drop(reader);
        writer.close(None).unwrap();
        // The last connection takes SQLite's log into the database.
        assert!(path.exists());
        assert!(!path.with_extension("db-wal").exists());
    }

    #[test]
    fn after_the_end_orders_are_unavailable() {
        let (sender, jobs) = sync_channel(1);
        drop(jobs);
        let verdict = Counter(sender).submit(order(append(1, Kind::TokenReady)));
        assert!(is_unavailable(&verdict, "stopping"));
    }
}
