//! The repeat window on virtual time, against a plain model: an event is a repeat within it, and
//! at its end no more, however the window itself changes.

use proptest::prelude::*;

use super::{super::transaction::Transaction, *};

#[derive(Debug, Clone)]
enum Step {
    Event(u8),
    /// The last delivery of the event is discarded, if it is pending.
    GiveUp(u8),
    Pass(u64),
    Connected(bool),
    /// What has left the window is forgotten, and so are all rows that are settled.
    Tend,
    Reopen,
    /// Another window, as by a reload.
    Window(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let window = prop::sample::select(vec![3_u64, 1_000, 4_000, 40_000]);
    prop_oneof![
        10 => (0..12_u8).prop_map(Step::Event),
        3 => (0..12_u8).prop_map(Step::GiveUp),
        6 => prop_oneof![0..1_500_u64, 0..9_000_u64].prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Connected),
        3 => Just(Step::Tend),
        1 => Just(Step::Reopen),
        1 => window.prop_map(Step::Window),
    ]
}

/// The writer's place, on a clock of its own.
struct Desk {
    connection: rusqlite::Connection,
    ledger: Ledger,
    recent: Recent,
    next_id: i64,
    shared: Shared,
    now: Instant,
    window: Duration,
    folder: TempDir,
}

impl Desk {
    fn new(window: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            max_size: 64 * MIB,
            max_route_share: 0.5,
            keep_delivered: Duration::ZERO,
            keep_dead: Duration::ZERO,
        };
        let options = Options {
            path: folder.path().join("q.db"),
            bounds,
            observer: Arc::new(|_| {}),
            clock: Arc::new(|| Timestamp(1_000)),
        };
        let connection = schema::open_writer(&options.path).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let (ledger, now) = (Ledger::default(), Instant::now());
        let recent = Recent::load(&connection).unwrap();
        let shared = Shared::new(options);
        let mut desk = Self { connection, ledger, recent, next_id: 0, shared, now, window, folder };
        desk.ledger.index(&desk.connection, &"r".into()).unwrap();
        desk.configure();
        desk
    }

    fn configure(&mut self) {
        let settings = RouteSettings { dedupe: Some(self.window), ..settings("r", false) };
        self.ledger.configure(vec![settings]);
        self.ledger.connected("r", true, self.now);
    }

    fn reopen(&mut self) {
        self.connection = schema::open_writer(&self.folder.path().join("q.db")).unwrap();
        self.connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        self.recent = Recent::load(&self.connection).unwrap();
        self.ledger = Ledger::load(&self.connection, &self.recent).unwrap();
        self.configure();
    }

    fn transact<T>(&mut self, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        self.transact_and_tend(2, work)
    }

    /// As the writer does: the window is looked after when all else is done.
    fn transact_and_tend<T>(
        &mut self,
        most: usize,
        work: impl FnOnce(&mut Transaction<'_>) -> T,
    ) -> T {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut taken = Vec::new();
        let mut transaction = Transaction {
            connection: &self.connection,
            ledger: &mut self.ledger,
            recent: &mut self.recent,
            next_id: &mut self.next_id,
            caps: Caps::new(&self.shared.options.bounds),
            wall: Timestamp(1_000),
            now: self.now,
            shared: &self.shared,
            taken: &mut taken,
            bulk: false,
            effects: Default::default(),
            often: Default::default(),
        };
        let done = work(&mut transaction);
        transaction.keep_window(most, false).unwrap();
        drop(transaction);
        self.ledger.write(&self.connection, self.now).unwrap();
        self.connection.execute_batch("COMMIT").unwrap();
        self.ledger.committed();
        self.recent.committed();
        self.shared.settled(taken.iter().map(|(_, id)| *id));
        done
    }

    fn clock(&self) -> i64 {
        self.ledger.find("r").unwrap().clock_ms(self.now)
    }

    /// When the oldest was seen that is remembered, by the repeat clock, and how many are.
    fn remembered(&self) -> (Option<i64>, i64) {
        let ids = super::recount::remembered(&self.connection).remove(&1).unwrap_or_default();
        (ids.values().copied().min(), i64::try_from(ids.len()).unwrap())
    }
}

/// When an event was seen, and as which delivery, if that was not given up.
#[derive(Debug, Default)]
struct Model {
    clock: i64,
    stands: bool,
    seen: std::collections::HashMap<u8, (i64, Option<DeliveryId>)>,
    /// The window was another before, or the file was opened anew: some are remembered longer.
    longer: bool,
    /// Outside a window that was then lengthened: remembered still, or not.
    either: std::collections::HashSet<u8>,
}

fn take(desk: &mut Desk, model: &mut Model, step: &Step) {
    let window = i64::try_from(desk.window.as_millis()).unwrap();
    match step {
        Step::Event(number) => {
            let batch = [pending(&number.to_string(), None)];
            let route: Arc<str> = "r".into();
            let done = desk.transact(|now| now.append(&route, &batch, Space::Capped));
            let appended = done.unwrap().unwrap().remove(0);
            let either = model.either.remove(number);
            match model.seen.get(number) {
                Some((_, Some(id))) if either && appended == Appended::Duplicate(*id) => {
                    model.either.insert(*number);
                }
                Some((at, Some(id))) if model.clock - at < window && !either => {
                    assert_eq!(appended, Appended::Duplicate(*id), "{number}, seen at {at}");
                }
                // An earlier one is within the longer window again.
                Some((_, None)) if model.longer && matches!(appended, Appended::Duplicate(_)) => {}
                known => {
                    let Appended::Pending(id) = appended else { panic!("{appended:?} {known:?}") };
                    model.seen.insert(*number, (model.clock, Some(id)));
                }
            }
        }
        Step::GiveUp(number) => {
            let Some((_, known @ Some(_))) = model.seen.get_mut(number) else { return };
            let id = known.take().unwrap();
            desk.transact(|now| now.act(Action::Discard, id)).unwrap().unwrap();
        }
        Step::Pass(ms) => {
            desk.now += Duration::from_millis(*ms);
            model.clock += if model.stands { 0 } else { i64::try_from(*ms).unwrap() };
        }
        Step::Connected(up) => {
            desk.ledger.connected("r", *up, desk.now);
            model.stands = !up;
        }
        Step::Tend => {
            let all = Timestamp(i64::MAX);
            desk.transact_and_tend(1000, |now| now.prune(all, all, 1000).unwrap());
            let (oldest, count) = desk.remembered();
            assert_eq!(u64::try_from(count).unwrap(), desk.ledger.find("r").unwrap().seen);
            let kept = oldest.map_or(0, |oldest| model.clock - oldest);
            assert!(model.longer || kept <= window + window / 4 + 1, "{kept} ms in {window} ms");
        }
        Step::Reopen => {
            desk.reopen();
            model.longer = true;
            // The time since the last commit is not known any more: it makes the window longer.
            let last = model.seen.values().map(|(at, _)| *at).max().unwrap_or(0);
            assert!((last..=model.clock).contains(&desk.clock()));
            (model.clock, model.stands) = (desk.clock(), false);
        }
        Step::Window(ms) => {
            let gone = model.seen.iter().filter(|(_, (at, _))| model.clock - at >= window);
            model.either.extend(gone.map(|(number, _)| *number));
            model.longer |= desk.window != Duration::from_millis(*ms);
            desk.window = Duration::from_millis(*ms);
            let settings = RouteSettings { dedupe: Some(desk.window), ..settings("r", false) };
            desk.ledger.configure(vec![settings]);
        }
    }
    assert_eq!(desk.clock(), model.clock);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_repeat_is_one_within_the_window_and_at_its_end_no_more(
        window_ms in prop::sample::select(vec![3_u64, 1_000, 4_000, 40_000]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut desk = Desk::new(Duration::from_millis(window_ms));
        let mut model = Model::default();
        for step in &steps {
            take(&mut desk, &mut model, step);
        }
    }
}
