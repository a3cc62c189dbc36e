//! Polynomials over the rationals in variables, π, e, i and roots of primes.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::budget::Budget;
use crate::power::power;

/// Terms of a polynomial.
const MOST_TERMS: usize = 1024;

/// Bits of a coefficient's numerator and denominator.
const MOST_BITS: u64 = 8192;

/// Primes by which the number under a root is divided.
const LARGEST_FACTOR: u128 = 1000;

/// What a polynomial is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// i² = −1.
    I,
    Pi,
    E,
    /// rⁿ = p, for a prime p or a number that has no factor up to 1000.
    Root {
        radicand: u128,
        index: u32,
    },
    Variable(String),
}

type Monomial = Vec<(Atom, u32)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polynomial {
    /// No coefficient is zero.
    terms: BTreeMap<Monomial, BigRational>,
}

impl Polynomial {
    pub fn zero() -> Self {
        let terms = BTreeMap::new();
        Self { terms }
    }

    pub fn constant(value: BigRational) -> Self {
        let mut polynomial = Self::zero();
        polynomial.add_term(Vec::new(), value);
        polynomial
    }

    pub fn atom(atom: Atom) -> Self {
        let terms = BTreeMap::from([(vec![(atom, 1)], BigRational::one())]);
        Self { terms }
    }

    pub fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }

    /// The rational number that it is.
    pub fn as_constant(&self) -> Option<BigRational> {
        let mut terms = self.terms.iter();
        match (terms.next(), terms.next()) {
            (None, _) => Some(BigRational::zero()),
            (Some((monomial, value)), None) if monomial.is_empty() => Some(value.clone()),
            _ => None,
        }
    }

    /// Whether a polynomial in these atoms is zero only when it has no term: square roots of
    /// primes are independent of one another, of i, of π and of variables (of e too, as far
    /// as anybody knows).
    pub fn is_certain(&self) -> bool {
        let sure = |(atom, _): &(Atom, u32)| match atom {
            Atom::Root { radicand, index } => {
                *index == 2 && *radicand < LARGEST_FACTOR * LARGEST_FACTOR
            }
            _ => true,
        };
        self.terms.keys().flatten().all(sure)
    }

    fn add_term(&mut self, monomial: Monomial, value: BigRational) {
        let sum = match self.terms.remove(&monomial) {
            Some(before) => before + value,
            None => value,
        };
        if !sum.is_zero() {
            self.terms.insert(monomial, sum);
        }
    }

    pub fn negated(mut self) -> Self {
        self.terms.values_mut().for_each(|value| *value = -&*value);
        self
    }

    pub fn plus(&self, other: &Self, budget: &mut Budget) -> Option<Self> {
        let mut sum = self.clone();
        for (monomial, value) in &other.terms {
            budget.spend(cost(value, &BigRational::one()))?;
            sum.add_term(monomial.clone(), value.clone());
        }
        (sum.terms.len() <= MOST_TERMS).then_some(sum)
    }

    pub fn times(&self, other: &Self, budget: &mut Budget) -> Option<Self> {
        let mut product = Self::zero();
        for (a, x) in &self.terms {
            for (b, y) in &other.terms {
                budget.spend(cost(x, y) + 150 * (a.len() + b.len()) as u64)?;
                let (monomial, factor) = multiplied(a, b)?;
                let value = x * y * factor;
                if value.numer().bits().max(value.denom().bits()) > MOST_BITS {
                    return None;
                }
                product.add_term(monomial, value);
                if product.terms.len() > MOST_TERMS {
                    return None;
                }
            }
        }
        Some(product)
    }

    pub fn power(&self, exponent: u32, budget: &mut Budget) -> Option<Self> {
        let one = Self::constant(BigRational::one());
        power(one, self, exponent, |a, b| a.times(b, budget))
    }

    /// The constant that `other` has to be multiplied with to give this one.
    pub fn ratio_to(&self, other: &Self) -> Option<BigRational> {
        let (monomial, value) = self.terms.iter().next()?;
        let ratio = value / other.terms.get(monomial)?;
        let same = |(m, v): (&Monomial, &BigRational)| {
            other.terms.get(m).is_some_and(|o| o * &ratio == *v)
        };
        (self.terms.len() == other.terms.len() && self.terms.iter().all(same)).then_some(ratio)
    }
}

/// About how long the product of two numbers takes, the common divisor included.
fn cost(x: &BigRational, y: &BigRational) -> u64 {
    let bits = x.numer().bits() + x.denom().bits() + y.numer().bits() + y.denom().bits();
    500 + bits * bits / 12
}

/// The product of two monomials, and the number that comes out of its roots.
fn multiplied(a: &Monomial, b: &Monomial) -> Option<(Monomial, BigRational)> {
    let mut powers: BTreeMap<&Atom, u32> = BTreeMap::new();
    for (atom, power) in a.iter().chain(b) {
        let sum = powers.entry(atom).or_default();
        *sum = sum.checked_add(*power).filter(|power| *power <= 4096)?;
    }
    let (mut monomial, mut factor) = (Vec::with_capacity(powers.len()), BigRational::one());
    for (atom, power) in powers {
        let left = match atom {
            Atom::I => {
                if power % 4 >= 2 {
                    factor = -factor;
                }
                power % 2
            }
            Atom::Root { radicand, index } => {
                factor *= BigRational::from_integer(BigInt::from(*radicand).pow(power / index));
                power % index
            }
            _ => power,
        };
        if left > 0 {
            monomial.push((atom.clone(), left));
        }
    }
    Some((monomial, factor))
}

/// In a machine word where it fits, which is several times as fast.
fn is_divisible(number: u128, by: u128) -> bool {
    match (u64::try_from(number), u64::try_from(by)) {
        (Ok(number), Ok(by)) => number.is_multiple_of(by),
        _ => number.is_multiple_of(by),
    }
}

/// The `index`-th root of a rational number: the real one where there is one, else the principal
/// one.
pub fn root(value: &BigRational, index: u32, budget: &mut Budget) -> Option<Polynomial> {
    if value.is_zero() {
        return Some(Polynomial::zero());
    }
    // ⁿ√(a/b) = ⁿ√(a·bⁿ⁻¹)/b
    let radicand = value.numer().abs() * value.denom().pow(index.checked_sub(1)?);
    let mut left = radicand.to_u128()?;
    let mut outside = BigRational::new(BigInt::one(), value.denom().clone());
    let mut inside = Polynomial::constant(BigRational::one());
    let mut take = |prime: u128, power: u32, outside: &mut BigRational| -> Option<()> {
        *outside *= BigRational::from_integer(BigInt::from(prime).pow(power / index));
        for _ in 0..power % index {
            let atom = Polynomial::atom(Atom::Root {
                radicand: prime,
                index,
            });
            inside = inside.times(&atom, budget)?;
        }
        Some(())
    };
    for prime in 2..=LARGEST_FACTOR {
        // No smaller factor is left: it is a prime itself.
        if prime * prime > left {
            break;
        }
        let mut power = 0;
        while is_divisible(left, prime) {
            left /= prime;
            power += 1;
        }
        if power > 0 {
            take(prime, power, &mut outside)?;
        }
    }
    if left > 1 {
        match BigInt::from(left).nth_root(index).to_u128() {
            Some(whole) if whole.checked_pow(index) == Some(left) => {
                take(whole, index, &mut outside)?
            }
            _ => take(left, 1, &mut outside)?,
        }
    }
    let mut root = inside.times(&Polynomial::constant(outside), budget)?;
    if value.is_negative() {
        root = match index {
            _ if index % 2 == 1 => root.negated(),
            2 => root.times(&Polynomial::atom(Atom::I), budget)?,
            _ => return None,
        };
    }
    Some(root)
}
