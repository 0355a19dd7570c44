//! How many messages RabbitMQ may send ahead: memory's only bound.
//!
//! The client library puts no bound on what RabbitMQ sends ahead; `prefetch` is the only one. It
//! counts messages, while memory counts bytes, so it follows the size of the messages that come: 64
//! MiB of the largest seen lately. It begins at what 64 MiB hold of the largest allowed and grows
//! eightfold as messages turn out to be small, to the number configured. RabbitMQ has it take
//! effect for new consumers only, so each change is a cancel, and another consume once what is
//! under way is acked. Around it messages may come out of order, and a single active consumer that
//! cancels makes another gateway's the active one. So routes with an order begin at 64, fall only
//! for large messages and never rise beyond.

/// Unacked bytes to aim at.
const UNACKED_BYTES: u64 = 64 << 20;

/// Prefetch at most, where there is an order to keep: plenty for one batch under way.
const ORDERED_PREFETCH: u16 = 64;

/// How many messages RabbitMQ may send ahead, by their size.
#[derive(Debug)]
pub(super) struct Prefetch {
    most: u16,
    now: u16,
    /// The largest message lately, in bytes; fades by half in some 350 messages.
    peak: u64,
    /// Messages since it was last changed.
    seen: u32,
    wanted: u16,
}

impl Prefetch {
    pub(super) fn new(most: u16, max_message: u64, ordered: bool) -> Self {
        let most = if ordered { most.min(ORDERED_PREFETCH) } else { most }.max(1);
        let now = if ordered { most } else { fitting(max_message).min(most) };
        Self { most, now, peak: 0, seen: 0, wanted: now }
    }

    /// The prefetch to consume with.
    pub(super) fn get(&self) -> u16 {
        self.now
    }

    /// Learns the size of a message that came.
    pub(super) fn note(&mut self, size: u64) {
        self.peak = size.max(self.peak - self.peak / 512);
        self.seen = self.seen.saturating_add(1);
        let fits = fitting(self.peak).min(self.most);
        // By half or double at least, or it would change with every message; up only on the
        // evidence of as many messages as it now allows.
        if fits <= self.now / 2 {
            self.wanted = fits;
        } else if (fits / 2 >= self.now || fits == self.most) && self.seen >= u32::from(self.now) {
            self.wanted = fits.min(self.now.saturating_mul(8));
        } else {
            self.wanted = self.now;
        }
    }

    /// Whether it is to change; then [`Prefetch::get`] is what to change it to.
    pub(super) fn misfits(&mut self) -> bool {
        if self.wanted == self.now {
            return false;
        }
        self.now = self.wanted;
        self.seen = 0;
        true
    }
}

/// How many messages of `size` bytes fit the aim.
fn fitting(size: u64) -> u16 {
    u16::try_from((UNACKED_BYTES / size.max(1)).max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(prefetch: &mut Prefetch, messages: usize, size: u64) -> u16 {
        for _ in 0..messages {
            prefetch.note(size);
            prefetch.misfits();
        }
        prefetch.now
    }

    #[test]
    fn prefetch_begins_with_what_fits_and_grows_to_the_configured_number() {
        let mut prefetch = Prefetch::new(1000, 16 << 20, false);
        assert_eq!(prefetch.now, 4);
        assert_eq!(after(&mut prefetch, 4, 512), 32);
        assert_eq!(after(&mut prefetch, 32, 512), 256);
        assert_eq!(after(&mut prefetch, 256, 512), 1000);
        assert_eq!(after(&mut prefetch, 10_000, 512), 1000, "and stays");
    }

    #[test]
    fn prefetch_falls_with_the_first_large_message_and_recovers() {
        let mut prefetch = Prefetch::new(1000, 64 << 20, false);
        assert_eq!(after(&mut prefetch, 10_000, 512), 1000);
        assert_eq!(after(&mut prefetch, 1, 8 << 20), 8);
        assert_eq!(after(&mut prefetch, 5000, 512), 1000);
    }

    #[test]
    fn prefetch_of_ordered_routes_changes_for_large_messages_only() {
        let mut prefetch = Prefetch::new(1000, 16 << 20, true);
        assert_eq!(prefetch.now, 64);
        assert_eq!(after(&mut prefetch, 10_000, 512), 64);
        assert_eq!(after(&mut prefetch, 1, 8 << 20), 8);
        assert_eq!(after(&mut prefetch, 5000, 512), 64);
    }

    #[test]
    fn prefetch_is_never_nothing() {
        assert_eq!(Prefetch::new(0, 1, false).now, 1);
        let mut prefetch = Prefetch::new(1000, u64::MAX, false);
        assert_eq!(prefetch.now, 1);
        assert_eq!(after(&mut prefetch, 3, 1 << 40), 1);
    }
}
