//! Lists of limits, of single keys too, on virtual time: what no window may exceed, what must be
//! used, and what one key may not feel of another.

use super::*;

/// From one a day to a million a second.
fn any_limit() -> impl Strategy<Value = (u32, Duration, u32)> {
    let period_us = prop_oneof![
        1_u64..2_000,
        1_000_u64..5_000_000,
        Just(60_000_000),
        Just(3_600_000_000),
        Just(86_400_000_000),
    ];
    let limit = prop_oneof![1_u32..5, 1_u32..200, Just(u32::MAX)];
    let burst = prop_oneof![1_u32..4, 1_u32..40, Just(u32::MAX)];
    (limit, period_us.prop_map(Duration::from_micros), burst)
}

/// Panics where a window of any length holds more than was promised.
fn check_windows(sent: &[Duration], (limit, period, burst): (u32, Duration, u32)) {
    for (first, from) in sent.iter().enumerate() {
        for (last, until) in sent.iter().enumerate().skip(first) {
            let window = *until - *from + LATE_MAX + Duration::from_nanos(1);
            let refilled = (u128::from(limit) * window.as_nanos()).div_ceil(period.as_nanos());
            let bound = u128::from(burst) + refilled - 1;
            let count = (last - first + 1) as u128;
            assert!(count <= bound, "{count} in {window:?}, at most {bound}");
        }
    }
}

/// One after the other until it may go; when that is, or `None` when it gives up waiting.
fn go(limits: &RateLimits, keys: &Keys, now: &mut Instant, lates_us: &[u64]) -> Option<Instant> {
    let since = *now;
    for late_us in lates_us {
        match limits.take(keys, since, *now) {
            Taken::Now => return Some(*now),
            Taken::Upstream(at) | Taken::Key(at) => {
                assert!(at > *now, "sent away until a time that has come");
                *now = at + Duration::from_micros(*late_us);
            }
            Taken::Stale => unreachable!("the limits are the same all along"),
        }
    }
    None
}

type Arrival = (u64, Option<u8>, Vec<u64>);

fn any_arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let idle_us = prop_oneof![0_u64..2_000, 0_u64..400_000, Just(30_000_000)];
    let lates_us = prop::collection::vec(0_u64..9_000, 1..4);
    prop::collection::vec((idle_us, prop::option::of(0_u8..3), lates_us), 1..150)
}

fn keys_of(key: Option<u8>) -> Keys {
    let value = key.map(|key| key.to_string().into());
    Keys { epoch: 0, values: vec![None, value.clone(), value] }
}

proptest! {
    #[test]
    fn of_a_list_no_limit_is_exceeded_in_any_window_for_any_key(
        plain in any_limit(),
        first in any_limit(),
        second in any_limit(),
        arrivals in any_arrivals(),
    ) {
        let start = Instant::now();
        let of = |(limit, period, burst)| config(limit, period, burst);
        let by_key = |(limit, period, burst)| keyed(limit, period, burst);
        let limits = RateLimits::new(&[of(plain), by_key(first), by_key(second)], start);
        let mut now = start;
        let mut sent: Vec<(Option<u8>, Duration)> = Vec::new();
        for (idle_us, key, lates_us) in arrivals {
            now += Duration::from_micros(idle_us);
            let gone = go(&limits, &keys_of(key), &mut now, &lates_us);
            sent.extend(gone.map(|at| (key, at - start)));
        }
        let all: Vec<Duration> = sent.iter().map(|(_, at)| *at).collect();
        check_windows(&all, plain);
        for key in 0..3 {
            let of_key: Vec<Duration> =
                sent.iter().filter(|(other, _)| *other == Some(key)).map(|(_, at)| *at).collect();
            check_windows(&of_key, first);
            check_windows(&of_key, second);
        }
    }

    /// Everyone who comes has waited since the start, and wakes a little late.
    #[test]
    fn nearly_all_of_a_limit_is_used_when_there_is_always_someone_waiting(
        limit in 1_u32..1_000,
        burst in 1_u32..20,
        lates_us in prop::collection::vec(0_u64..9_000, 1..50),
    ) {
        let start = Instant::now();
        let limits = RateLimits::new(&[config(limit, SECOND, burst)], start);
        let (mut now, mut sent) = (start, 0_u32);
        let mut lates_us = lates_us.iter().cycle();
        while sent < 1_000 {
            match limits.take(&Keys::none(), start, now) {
                Taken::Now => sent += 1,
                Taken::Upstream(at) => now = at + Duration::from_micros(*lates_us.next().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        let share = f64::from(sent) / (f64::from(limit) * (now - start).as_secs_f64());
        prop_assert!(share >= 0.97, "only {share} of it is used");
    }

    #[test]
    fn what_others_do_is_nothing_to_a_key(
        limit in any_limit(),
        steps in prop::collection::vec(
            (0_u64..400_000, any::<bool>(), prop::option::weighted(0.1, 0_u64..5_000_000)),
            1..150,
        ),
    ) {
        let (limit, period, burst) = limit;
        let start = Instant::now();
        let alone = RateLimits::new(&[keyed(limit, period, burst)], start);
        let beside = RateLimits::new(&[keyed(limit, period, burst)], start);
        let mut now = start;
        for (idle_us, mine, quiet_us) in steps {
            now += Duration::from_micros(idle_us);
            let keys = key(if mine { "mine" } else { "other" });
            if let Some(quiet) = quiet_us.map(Duration::from_micros) {
                prop_assert!(beside.quiet(&keys, Some(quiet), now));
                prop_assert!(!mine || alone.quiet(&keys, Some(quiet), now));
                let taken = beside.key_wait(&keys, now);
                prop_assert!(quiet.is_zero() || taken.is_some_and(|at| at >= now + quiet));
                prop_assert!(!mine || alone.key_wait(&keys, now) == taken);
            }
            let taken = beside.take(&keys, now, now);
            prop_assert!(!mine || alone.take(&keys, now, now) == taken);
        }
    }
}
