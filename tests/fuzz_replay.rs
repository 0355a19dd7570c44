//! What fuzzing has kept is played to what was fuzzed: with any toolchain, and in seconds.

use tidegate_tests::fuzz;

/// Plays every input kept for a target. The failing one stands in the test's output.
macro_rules! replays {
    ($($target:ident),+ $(,)?) => {
        $(
            #[test]
            fn $target() {
                for (path, input) in fuzz::kept(stringify!($target)) {
                    println!("{}", path.display());
                    fuzz::$target(&input);
                }
            }
        )+

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($target)),+];
            assert_eq!(fuzz::TARGETS.map(|(name, _)| name), replayed);
        }
    };
}

replays!(
    answers,
    configuration,
    envelopes_amqp,
    envelopes_http,
    expressions,
    listener,
    queue_file,
    signatures,
);
