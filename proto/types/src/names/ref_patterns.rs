//! Many patterns of ref names at once.

use super::RefName;
use super::ref_pattern::{RefPattern, Sign};
use crate::limits;

/// Patterns of one repository, compiled once and matched against many names. A name costs one step
/// per byte and pattern at most. A pattern with another fixed beginning than the name costs only a
/// comparison.
#[derive(Debug, Clone, Default)]
pub struct RefPatterns {
    patterns: Vec<(RefPattern, Matcher)>,
}

impl RefPatterns {
    /// Compiles the patterns, in their order.
    pub fn new(patterns: impl IntoIterator<Item = RefPattern>) -> Self {
        let compiled = |pattern: RefPattern| {
            let matcher = Matcher::new(&pattern);
            (pattern, matcher)
        };
        Self {
            patterns: patterns.into_iter().map(compiled).collect(),
        }
    }

    /// Whether there are no patterns.
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The first pattern that matches the name.
    pub fn first_match(&self, name: &RefName) -> Option<&RefPattern> {
        let name = name.as_str().as_bytes();
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|(_, matcher)| matcher.matches(name));
        found.map(|(pattern, _)| pattern)
    }
}

impl PartialEq for RefPatterns {
    fn eq(&self, other: &Self) -> bool {
        let own = self.patterns.iter().map(|(pattern, _)| pattern);
        own.eq(other.patterns.iter().map(|(pattern, _)| pattern))
    }
}

impl Eq for RefPatterns {}

/// One pattern, compiled: its fixed beginning, and the rest.
#[derive(Debug, Clone)]
struct Matcher {
    begin: Vec<u8>,
    /// `None`: nothing may follow.
    rest: Option<Automaton>,
}

impl Matcher {
    fn new(pattern: &RefPattern) -> Self {
        let mut signs = pattern.signs();
        let byte = |sign: &Sign<'_>| match sign {
            Sign::Byte(byte) => Some(*byte),
            Sign::Any | Sign::Of(_) | Sign::Name | Sign::Directories | Sign::Rest => None,
        };
        let begin: Vec<u8> = signs.iter().map_while(byte).collect();
        let rest = signs.split_off(begin.len());
        Self {
            begin,
            rest: (!rest.is_empty()).then(|| Automaton::new(rest)),
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match (name.strip_prefix(self.begin.as_slice()), &self.rest) {
            (None, _) => false,
            (Some(rest), None) => rest.is_empty(),
            (Some(rest), Some(automaton)) => automaton.matches(rest),
        }
    }
}

/// Words of a set of places.
const WORDS: usize = 4;
/// Bits of a word.
const WORD_BITS: usize = 64;
/// A sign takes at least a byte of its pattern, and at most as many places as bytes: one place more
/// than the bytes is enough.
const _: () = assert!(limits::REF_PATTERN_BYTES_MAX < WORDS * WORD_BITS);

/// Places of a pattern, each behind so many of its signs.
#[derive(Debug, Clone, Copy, Default)]
struct Places([u64; WORDS]);

impl Places {
    fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / WORD_BITS) {
            *word |= 1 << (place % WORD_BITS);
        }
    }

    fn contains(&self, place: usize) -> bool {
        let word = self.0.get(place / WORD_BITS);
        word.is_some_and(|word| word & (1 << (place % WORD_BITS)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    fn and(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        self
    }

    fn or(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
        self
    }

    /// The places `places` further on, one or two.
    fn further(mut self, places: u32) -> Self {
        let mut carried = 0;
        for word in &mut self.0 {
            let out = *word >> (u64::BITS - places);
            *word = (*word << places) | carried;
            carried = out;
        }
        self
    }
}

/// The step of the automaton for bytes of one class.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// Places that such a byte leads to from the one before.
    reached: Places,
    /// Places that such a byte does not lead away from.
    kept: Places,
}

/// The automaton of a pattern: it steps byte by byte from all places that the text so far can lead
/// to (the shift-and method for patterns with gaps: Navarro and Raffinot, Flexible Pattern Matching
/// in Strings, section 4.3).
#[derive(Debug, Clone)]
struct Automaton {
    /// Bytes that the pattern does not distinguish have one class; 0 is the class of those that it
    /// does not name.
    classes: Box<[u16; 256]>,
    /// One per class.
    steps: Vec<Step>,
    /// Places from which an empty text leads one place further.
    skips_one: Places,
    /// The same, two places.
    skips_two: Places,
    start: Places,
    end: usize,
}

impl Automaton {
    fn new(signs: Vec<Sign<'_>>) -> Self {
        let signs = without_repetitions(signs);
        let (classes, named) = classes(&signs);
        let mut automaton = Self {
            classes,
            steps: vec![Step::default(); named.len()],
            skips_one: Places::default(),
            skips_two: Places::default(),
            start: Places::default(),
            end: 0,
        };
        for sign in &signs {
            automaton.append(sign, &named);
        }
        let mut first = Places::default();
        first.insert(0);
        automaton.start = automaton.skipped(first);
        automaton
    }

    /// Appends a sign. `named` holds a byte of every class; `None` stands for those that no sign
    /// names.
    fn append(&mut self, sign: &Sign<'_>, named: &[Option<u8>]) {
        let (place, next) = (self.end, self.end + 1);
        self.end = next;
        let each = self.steps.iter_mut().zip(named);
        match sign {
            Sign::Byte(wanted) => {
                for (step, _) in each.filter(|(_, byte)| **byte == Some(*wanted)) {
                    step.reached.insert(next);
                }
            }
            Sign::Any => {
                for (step, _) in each.filter(|(_, byte)| **byte != Some(b'/')) {
                    step.reached.insert(next);
                }
            }
            Sign::Of(set) => {
                for (step, _) in each.filter(|(_, byte)| set.holds(**byte)) {
                    step.reached.insert(next);
                }
            }
            Sign::Name => {
                for (step, _) in each.filter(|(_, byte)| **byte != Some(b'/')) {
                    step.kept.insert(next);
                }
                self.skips_one.insert(place);
            }
            Sign::Rest => {
                for (step, _) in each {
                    step.kept.insert(next);
                }
                self.skips_one.insert(place);
            }
            // One place within the directories, and one behind them.
            Sign::Directories => {
                let behind = next + 1;
                for (step, byte) in each {
                    step.kept.insert(next);
                    if *byte == Some(b'/') {
                        step.reached.insert(behind);
                    }
                }
                self.skips_one.insert(place);
                self.skips_two.insert(place);
                self.end = behind;
            }
        }
    }

    /// The places and those that are reached from them without a byte. Only behind `**/` another
    /// sign can be skipped too, a `*`.
    fn skipped(&self, places: Places) -> Places {
        let places = places.or(&places.and(&self.skips_two).further(2));
        places.or(&places.and(&self.skips_one).further(1))
    }

    fn matches(&self, text: &[u8]) -> bool {
        let mut places = self.start;
        for byte in text {
            let class = self.classes.get(usize::from(*byte)).copied();
            let Some(step) = self.steps.get(usize::from(class.unwrap_or_default())) else {
                return false;
            };
            let reached = places.further(1).and(&step.reached);
            places = self.skipped(reached.or(&places.and(&step.kept)));
            if places.is_empty() {
                return false;
            }
        }
        places.contains(self.end)
    }
}

/// Removes repetitions: any number of directories twice is any number of directories, and any
/// number of them before everything is everything.
fn without_repetitions(signs: Vec<Sign<'_>>) -> Vec<Sign<'_>> {
    let mut kept: Vec<Sign<'_>> = Vec::with_capacity(signs.len());
    for sign in signs {
        if matches!(sign, Sign::Directories | Sign::Rest)
            && matches!(kept.last(), Some(Sign::Directories))
        {
            kept.pop();
        }
        kept.push(sign);
    }
    kept
}

/// The class of every byte, and a byte of every class.
fn classes(signs: &[Sign<'_>]) -> (Box<[u16; 256]>, Vec<Option<u8>>) {
    let mut classes = Box::new([0; 256]);
    let mut named = vec![None];
    let mut name = |byte: u8| {
        if let Some(class) = classes.get_mut(usize::from(byte))
            && *class == 0
        {
            *class = u16::try_from(named.len()).unwrap_or(u16::MAX);
            named.push(Some(byte));
        }
    };
    name(b'/');
    for sign in signs {
        match sign {
            Sign::Byte(byte) => name(*byte),
            Sign::Of(set) => set.ranges().flatten().for_each(&mut name),
            Sign::Any | Sign::Name | Sign::Directories | Sign::Rest => {}
        }
    }
    (classes, named)
}

#[cfg(test)]
mod tests {
    use super::super::ref_pattern::by_definition;
    use super::*;

    /// The first pattern of a few, by the compiled set and by the definition.
    fn compare(patterns: &[&str], name: &str) {
        let patterns: Vec<RefPattern> = patterns
            .iter()
            .map(|pattern| pattern.parse().expect("a valid pattern"))
            .collect();
        let name: RefName = name.parse().expect("a valid ref name");
        let expected = patterns
            .iter()
            .find(|pattern| by_definition(pattern, &name));
        let compiled = RefPatterns::new(patterns.clone());
        assert_eq!(
            compiled.first_match(&name),
            expected,
            "{patterns:?} {name:?}"
        );
    }

    /// All texts of these pieces that are at most `pieces` long.
    fn texts(of: &[&str], pieces: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..pieces {
            last = last
                .iter()
                .flat_map(|text| of.iter().map(move |piece| format!("{text}{piece}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    /// A set of patterns protects the same refs as its patterns one by one: the state of every
    /// replica relies on it.
    #[test]
    fn compiled_patterns_match_what_their_definition_says() {
        let valid = |text: &String| text.parse::<RefPattern>().is_ok();
        let patterns = texts(&["a", "/", "*", "?", "**/", "**", "[!a]"], 4);
        let sets = texts(&["[a-b]", "[^/-b]", "*", "/"], 3);
        let patterns = patterns.into_iter().chain(sets);
        let patterns: Vec<_> = patterns.filter(valid).collect();
        let named = |text: String| format!("refs/heads/{text}").parse().ok();
        let names = texts(&["a", "b", "/"], 5).into_iter();
        let names: Vec<RefName> = names.filter_map(named).collect();
        assert!(patterns.len() > 500 && names.len() > 100);
        for pattern in patterns {
            let pattern: RefPattern = pattern.parse().expect("valid");
            let compiled = RefPatterns::new([pattern.clone()]);
            for name in &names {
                let expected = by_definition(&pattern, name);
                let found = compiled.first_match(name).is_some();
                assert_eq!(found, expected, "{pattern:?} {name:?}");
            }
        }
    }

    #[test]
    fn the_first_of_several_patterns_is_named() {
        for name in ["refs/heads/main", "refs/heads/a/b", "refs/tags/v1"] {
            compare(&["main", "*", "refs/**"], name);
            compare(&["refs/**", "main"], name);
            compare(&["refs/tags/v[0-9]", "a/**"], name);
        }
        compare(&[], "refs/heads/main");
    }

    /// 50 long patterns and 400 long names took 45 s of a server's thread: the number of steps was
    /// pattern times name.
    #[test]
    fn long_patterns_and_long_names_are_matched_byte_by_byte() {
        let stars = "*a".repeat(120);
        let patterns = (0..50).map(|number| format!("{stars}{number}").parse());
        let patterns: Vec<RefPattern> = patterns.collect::<Result<_, _>>().expect("valid");
        let compiled = RefPatterns::new(patterns);
        for number in 0..100 {
            let name = format!("refs/heads/{}x{number}", "a".repeat(1000));
            let name: RefName = name.parse().expect("valid");
            assert_eq!(compiled.first_match(&name), None);
        }
        let name = format!("refs/heads/{}49", "a".repeat(1000));
        let found = compiled.first_match(&name.parse().expect("valid"));
        assert!(found.is_some_and(|pattern| pattern.as_str().ends_with("a49")));
    }

    #[test]
    fn the_longest_patterns_keep_all_their_places() {
        let tail = "b".repeat(limits::REF_PATTERN_BYTES_MAX - "refs/*".len() - 1);
        let long = format!("refs/*/{}", &tail[1..]);
        assert!(long.len() <= limits::REF_PATTERN_BYTES_MAX);
        for name in [
            format!("refs/heads/{}", &tail[1..]),
            format!("refs/heads/{}", &tail[2..]),
            format!("refs/heads/{}c", &tail[2..]),
        ] {
            compare(&[&long], &name);
        }
        let signs = format!("refs/**/{}", "?".repeat(247));
        compare(&[&signs], &format!("refs/heads/{}", "é".repeat(123)));
        compare(&[&signs], &format!("refs/heads/x/{}", "y".repeat(247)));
    }
}
