//! The exact value of an expression: a quotient of two polynomials.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::budget::Budget;
use crate::expr::{Constant, Expr, Function};
use crate::polynomial::{Atom, Polynomial, root};

/// Exponents of a polynomial with more than one term, and of anything.
const LARGEST_POWER: u32 = 64;
const LARGEST_EXPONENT: u32 = 2048;

/// Factorials that are worked out.
const LARGEST_FACTORIAL: u32 = 200;

#[derive(Clone, Debug)]
pub struct Exact {
    numerator: Polynomial,
    /// Never zero.
    denominator: Polynomial,
}

impl Exact {
    /// The value of the expression, where it has one that is rational in its atoms and the
    /// budget allows.
    pub fn of(expr: &Expr, budget: &mut Budget) -> Option<Self> {
        budget.spend(50)?;
        Some(match expr {
            Expr::Number(value) | Expr::Decimal { value, .. } => Self::rational(value.clone()),
            Expr::Symbol(name) => Self::polynomial(Polynomial::atom(Atom::Variable(name.clone()))),
            Expr::Constant(Constant::Pi) => Self::polynomial(Polynomial::atom(Atom::Pi)),
            Expr::Constant(Constant::E) => Self::polynomial(Polynomial::atom(Atom::E)),
            Expr::Constant(Constant::I) => Self::polynomial(Polynomial::atom(Atom::I)),
            Expr::Sum(terms) => {
                let mut sum = Self::rational(BigRational::zero());
                for term in terms {
                    sum = sum.plus(&Self::of(term, budget)?, budget)?;
                }
                sum
            }
            Expr::Product(factors) => {
                let mut product = Self::rational(BigRational::one());
                for factor in factors {
                    product = product.times(&Self::of(factor, budget)?, budget)?;
                }
                product
            }
            Expr::Negative(inner) => {
                let inner = Self::of(inner, budget)?;
                Self {
                    numerator: inner.numerator.negated(),
                    ..inner
                }
            }
            Expr::Quotient(parts) => {
                let [numerator, denominator] = parts.as_ref();
                let divisor = Self::of(denominator, budget)?.inverted(budget)?;
                Self::of(numerator, budget)?.times(&divisor, budget)?
            }
            Expr::Percent(inner) => {
                let hundredth = Self::rational(BigRational::new(BigInt::one(), BigInt::from(100)));
                Self::of(inner, budget)?.times(&hundredth, budget)?
            }
            Expr::Power(parts) => {
                let [base, exponent] = parts.as_ref();
                let exponent = Self::of(exponent, budget)?.as_rational()?;
                Self::of(base, budget)?.power(&exponent, budget)?
            }
            Expr::Root(parts) => {
                let [index, radicand] = parts.as_ref();
                let index = Self::of(index, budget)?.as_rational()?;
                let index = index.is_integer().then(|| index.to_integer().to_u32())??;
                let radicand = Self::of(radicand, budget)?.as_rational()?;
                Self::polynomial(small_root(&radicand, index, budget)?)
            }
            Expr::Call(function, arguments) => call(*function, arguments, budget)?,
            _ => return None,
        })
    }

    fn polynomial(numerator: Polynomial) -> Self {
        let denominator = Polynomial::constant(BigRational::one());
        Self {
            numerator,
            denominator,
        }
    }

    pub fn rational(value: BigRational) -> Self {
        Self::polynomial(Polynomial::constant(value))
    }

    pub fn as_rational(&self) -> Option<BigRational> {
        let (numerator, denominator) = (
            self.numerator.as_constant()?,
            self.denominator.as_constant()?,
        );
        Some(numerator / denominator)
    }

    fn inverted(self, budget: &mut Budget) -> Option<Self> {
        let Self {
            numerator,
            denominator,
        } = self;
        if numerator.is_zero() {
            return None;
        }
        Some(
            Self {
                numerator: denominator,
                denominator: numerator,
            }
            .reduced(budget),
        )
    }

    /// A constant denominator is divided by, where the budget allows.
    fn reduced(self, budget: &mut Budget) -> Self {
        match self.denominator.as_constant() {
            Some(constant) if !constant.is_one() && !constant.is_zero() => {
                let inverse = Polynomial::constant(constant.recip());
                match self.numerator.times(&inverse, budget) {
                    Some(numerator) => Self::polynomial(numerator),
                    None => self,
                }
            }
            _ => self,
        }
    }

    pub fn plus(&self, other: &Self, budget: &mut Budget) -> Option<Self> {
        if self.denominator == other.denominator {
            let numerator = self.numerator.plus(&other.numerator, budget)?;
            return Some(Self {
                numerator,
                denominator: self.denominator.clone(),
            });
        }
        let left = self.numerator.times(&other.denominator, budget)?;
        let right = other.numerator.times(&self.denominator, budget)?;
        let denominator = self.denominator.times(&other.denominator, budget)?;
        Some(
            Self {
                numerator: left.plus(&right, budget)?,
                denominator,
            }
            .reduced(budget),
        )
    }

    fn times(&self, other: &Self, budget: &mut Budget) -> Option<Self> {
        let numerator = self.numerator.times(&other.numerator, budget)?;
        let denominator = self.denominator.times(&other.denominator, budget)?;
        if denominator.is_zero() {
            return None;
        }
        Some(
            Self {
                numerator,
                denominator,
            }
            .reduced(budget),
        )
    }

    fn power(self, exponent: &BigRational, budget: &mut Budget) -> Option<Self> {
        let base = if exponent.is_negative() {
            self.inverted(budget)?
        } else {
            self
        };
        let exponent = exponent.abs();
        let (whole, index) = (exponent.numer().to_u32()?, exponent.denom().to_u32()?);
        if index > 1 {
            if whole > LARGEST_POWER {
                return None;
            }
            let rooted = small_root(&base.as_rational()?, index, budget)?;
            return Some(Self::polynomial(rooted.power(whole, budget)?));
        }
        let most = if base.as_rational().is_some() {
            LARGEST_EXPONENT
        } else {
            LARGEST_POWER
        };
        if whole > most {
            return None;
        }
        let numerator = base.numerator.power(whole, budget)?;
        Some(
            Self {
                numerator,
                denominator: base.denominator.power(whole, budget)?,
            }
            .reduced(budget),
        )
    }

    /// Whether two values are equal; `None` where neither can be shown.
    pub fn equals(&self, other: &Self, budget: &mut Budget) -> Option<bool> {
        let left = self.numerator.times(&other.denominator, budget)?;
        let right = other.numerator.times(&self.denominator, budget)?;
        let difference = left.plus(&right.negated(), budget)?;
        if difference.is_zero() {
            return Some(true);
        }
        difference.is_certain().then_some(false)
    }

    /// Whether one value is a constant, not zero, times the other.
    pub fn is_multiple(&self, other: &Self, budget: &mut Budget) -> Option<bool> {
        let left = self.numerator.times(&other.denominator, budget)?;
        let right = other.numerator.times(&self.denominator, budget)?;
        if left.ratio_to(&right).is_some() {
            return Some(true);
        }
        (left.is_certain() && right.is_certain()).then_some(false)
    }
}

fn small_root(radicand: &BigRational, index: u32, budget: &mut Budget) -> Option<Polynomial> {
    if !(1..=16).contains(&index) {
        return None;
    }
    // A thousand divisions, which take their time beyond a machine word.
    let is_large = radicand.numer().bits() + u64::from(index) * radicand.denom().bits() > 64;
    budget.spend(if is_large { 400_000 } else { 40_000 })?;
    root(radicand, index, budget)
}

fn call(function: Function, arguments: &[Expr], budget: &mut Budget) -> Option<Exact> {
    let mut values = arguments
        .iter()
        .map(|argument| Exact::of(argument, budget)?.as_rational());
    let first = values.next()??;
    let value = match function {
        Function::Abs => first.abs(),
        Function::Floor => first.floor(),
        Function::Ceiling => first.ceil(),
        Function::Factorial => {
            let n = first.is_integer().then(|| first.to_integer().to_u32())??;
            if n > LARGEST_FACTORIAL {
                return None;
            }
            BigRational::from_integer((1..=n).map(BigInt::from).product())
        }
        Function::Binomial => {
            let second = values.next()??;
            let whole =
                |value: &BigRational| value.is_integer().then(|| value.to_integer().to_u32())?;
            let (n, k) = (whole(&first)?, whole(&second)?);
            if n > 1000 {
                return None;
            }
            let choices = (0..k.min(n.saturating_sub(k)))
                .fold(BigInt::one(), |product, at| product * (n - at) / (at + 1));
            BigRational::from_integer(if k > n { BigInt::zero() } else { choices })
        }
        _ => return None,
    };
    drop(values);
    budget.spend(20_000)?;
    Some(Exact::rational(value))
}
