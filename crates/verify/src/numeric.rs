//! The value of an expression as a complex number of 192 bits, with a bound of its error.

use std::cell::RefCell;

use astro_float_num::{BigFloat, Consts, Radix, RoundingMode, Sign};
use num_rational::BigRational;

use crate::budget::Budget;
use crate::expr::{Constant, Expr, Function};
use crate::power::power;

const BITS: usize = 192;
const ROUNDING: RoundingMode = RoundingMode::ToEven;

/// Bits that rounding may take from a result.
const SLACK: i64 = 24;

/// Steps of an elementary operation, and of a transcendental function.
const ARITHMETIC: u64 = 250;
const TRANSCENDENTAL: u64 = 60_000;

/// Binary exponents beyond which a function's argument is not reduced.
const LARGEST_ANGLE: i64 = 64;
const LARGEST_EXPONENT: i64 = 24;
const LARGEST_FACTORIAL: u32 = 4096;

/// A value, and the binary logarithm of its absolute error.
#[derive(Clone, Debug)]
pub struct Value {
    re: BigFloat,
    im: BigFloat,
    error: i64,
}

thread_local! {
    /// Digits of π, e and ln 2, which take longer to work out than most answers.
    static CONSTANTS: RefCell<Option<Consts>> = const { RefCell::new(None) };
}

/// Evaluates expressions where the variables have values that follow from their names.
pub struct Evaluator<'a> {
    budget: &'a mut Budget,
    /// Until this is dropped.
    constants: Option<Consts>,
    /// Which of the points.
    point: u64,
}

impl Value {
    fn of(re: BigFloat, im: BigFloat, error: i64) -> Option<Self> {
        let broken = |x: &BigFloat| x.is_nan() || x.is_inf();
        if broken(&re) || broken(&im) {
            return None;
        }
        let value = Self { re, im, error };
        // Rounding itself.
        let error = error.max(value.magnitude() - BITS as i64 + 2);
        Some(Self { error, ..value })
    }

    fn real(re: BigFloat, error: i64) -> Option<Self> {
        Self::of(re, BigFloat::from_word(0, BITS), error)
    }

    fn exact(re: BigFloat) -> Option<Self> {
        Self::real(re, i64::MIN / 4)
    }

    fn is_real(&self) -> bool {
        self.im.is_zero()
    }

    /// The binary logarithm of the absolute value, about; very small for zero.
    fn magnitude(&self) -> i64 {
        log2(&self.re).max(log2(&self.im))
    }

    fn is_zero(&self) -> bool {
        self.magnitude() <= self.error + SLACK
    }

    /// The real number, where it is known well.
    fn sign(&self) -> Option<Sign> {
        (self.is_real() && !self.is_zero()).then(|| self.re.sign())?
    }
}

fn log2(x: &BigFloat) -> i64 {
    if x.is_zero() {
        i64::MIN / 4
    } else {
        x.exponent().map_or(i64::MAX / 4, i64::from)
    }
}

impl<'a> Evaluator<'a> {
    pub fn new(budget: &'a mut Budget, point: u64) -> Option<Self> {
        Some(Self {
            budget,
            constants: CONSTANTS.take().or_else(|| Consts::new().ok()),
            point,
        })
    }

    /// Whether two values are the same within their errors; `None` where the errors are too
    /// large to say.
    pub fn same(&mut self, a: &Value, b: &Value) -> Option<bool> {
        let difference = self.minus(a, b)?;
        let magnitude = a.magnitude().max(b.magnitude());
        if difference.magnitude() > difference.error + SLACK {
            return Some(false);
        }
        let significant = difference.error + SLACK < magnitude - 60;
        let both_zero = a.is_zero() && b.is_zero() && difference.error < -60;
        (significant || both_zero).then_some(true)
    }

    pub fn product(&mut self, a: &Value, b: &Value) -> Option<Value> {
        self.times(a, b)
    }

    /// Whether the expression's value is real and at most `bound` from zero.
    pub fn is_within(&mut self, expr: &Expr, bound: &BigRational) -> Option<bool> {
        let (value, bound) = (self.evaluate(expr)?, self.rational(bound)?);
        Some(value.is_real() && value.re.abs().cmp(&bound.re)? <= 0)
    }

    /// -1, 0 or 1 as the first real value is below, at or above the second.
    pub fn order(&mut self, a: &Expr, b: &Expr) -> Option<i8> {
        let (a, b) = (self.evaluate(a)?, self.evaluate(b)?);
        let difference = self.minus(&a, &b)?;
        match difference.sign() {
            Some(Sign::Pos) => Some(1),
            Some(Sign::Neg) => Some(-1),
            None => difference.is_real().then_some(0),
        }
    }

    pub fn evaluate(&mut self, expr: &Expr) -> Option<Value> {
        self.budget.spend(ARITHMETIC)?;
        match expr {
            Expr::Number(value) | Expr::Decimal { value, .. } => self.rational(value),
            Expr::Symbol(name) => self.variable(name),
            Expr::Constant(Constant::Pi) => {
                Value::real(self.constants.as_mut()?.pi(BITS, ROUNDING), 2 - BITS as i64)
            }
            Expr::Constant(Constant::E) => {
                Value::real(self.constants.as_mut()?.e(BITS, ROUNDING), 2 - BITS as i64)
            }
            Expr::Constant(Constant::I) => Value::of(
                BigFloat::from_word(0, BITS),
                BigFloat::from_word(1, BITS),
                i64::MIN / 4,
            ),
            Expr::Sum(terms) => {
                let mut sum = Value::exact(BigFloat::from_word(0, BITS))?;
                for term in terms {
                    let term = self.evaluate(term)?;
                    sum = self.plus(&sum, &term)?;
                }
                Some(sum)
            }
            Expr::Product(factors) => {
                let mut product = Value::exact(BigFloat::from_word(1, BITS))?;
                for factor in factors {
                    let factor = self.evaluate(factor)?;
                    product = self.times(&product, &factor)?;
                }
                Some(product)
            }
            Expr::Negative(inner) => Some(negated(self.evaluate(inner)?)),
            Expr::Quotient(parts) => {
                let [a, b] = [self.evaluate(&parts[0])?, self.evaluate(&parts[1])?];
                self.over(&a, &b)
            }
            Expr::Percent(inner) => {
                let (inner, hundred) = (
                    self.evaluate(inner)?,
                    Value::exact(BigFloat::from_word(100, BITS))?,
                );
                self.over(&inner, &hundred)
            }
            Expr::Degrees(inner) => {
                let inner = self.evaluate(inner)?;
                let pi = self.evaluate(&Expr::Constant(Constant::Pi))?;
                let half_turn = Value::exact(BigFloat::from_word(180, BITS))?;
                let product = self.times(&inner, &pi)?;
                self.over(&product, &half_turn)
            }
            Expr::Power(parts) => {
                let [base, exponent] = parts.as_ref();
                let base = self.evaluate(base)?;
                match exponent
                    .as_integer()
                    .and_then(|n| u32::try_from(n).ok())
                    .filter(|n| *n <= 4096)
                {
                    Some(n) => {
                        let one = Value::exact(BigFloat::from_word(1, BITS))?;
                        power(one, &base, n, |a, b| self.times(a, b))
                    }
                    None => {
                        let real_root = odd_root(exponent);
                        let exponent = self.evaluate(exponent)?;
                        match real_root {
                            // The real root, as `\sqrt[3]{…}` has it.
                            Some(odd) if base.sign() == Some(Sign::Neg) => {
                                let length = self.power(&negated(base), &exponent)?;
                                Some(if odd { negated(length) } else { length })
                            }
                            _ => self.power(&base, &exponent),
                        }
                    }
                }
            }
            Expr::Root(parts) => {
                let [index, radicand] = [self.evaluate(&parts[0])?, self.evaluate(&parts[1])?];
                let odd = parts[0].as_integer().is_some_and(|n| n.bit(0));
                let one = Value::exact(BigFloat::from_word(1, BITS))?;
                let exponent = self.over(&one, &index)?;
                if odd && radicand.sign() == Some(Sign::Neg) {
                    return Some(negated(self.power(&negated(radicand), &exponent)?));
                }
                self.power(&radicand, &exponent)
            }
            Expr::Call(function, arguments) => self.call(*function, arguments),
            _ => None,
        }
    }

    fn rational(&mut self, value: &BigRational) -> Option<Value> {
        let mut integer = |digits: &num_bigint::BigInt| {
            self.budget.spend(digits.bits() * digits.bits() / 64)?;
            let text = digits.to_string();
            Some(BigFloat::parse(
                &text,
                Radix::Dec,
                BITS,
                ROUNDING,
                self.constants.as_mut()?,
            ))
        };
        let (numerator, denominator) = (integer(value.numer())?, integer(value.denom())?);
        Value::real(numerator.div(&denominator, BITS, ROUNDING), i64::MIN / 4)
    }

    /// Positive, between a third and two and a third, so that roots and logarithms have a value.
    fn variable(&mut self, name: &str) -> Option<Value> {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(self.point + 1);
        for byte in name.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
            seed ^= seed >> 29;
        }
        let place = (seed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64 / (1u64 << 53) as f64;
        Value::exact(BigFloat::from_f64(1.0 / 3.0 + 2.0 * place, BITS))
    }

    fn plus(&mut self, a: &Value, b: &Value) -> Option<Value> {
        self.budget.spend(ARITHMETIC)?;
        let sum = |x: &BigFloat, y: &BigFloat| x.add(y, BITS, ROUNDING);
        // What was rounded off before the difference shrank.
        let rounding = a.magnitude().max(b.magnitude()) - BITS as i64 + 2;
        Value::of(
            sum(&a.re, &b.re),
            sum(&a.im, &b.im),
            a.error.max(b.error).max(rounding) + 1,
        )
    }

    fn minus(&mut self, a: &Value, b: &Value) -> Option<Value> {
        self.plus(a, &negated(b.clone()))
    }

    fn times(&mut self, a: &Value, b: &Value) -> Option<Value> {
        self.budget.spend(ARITHMETIC)?;
        let product = |x: &BigFloat, y: &BigFloat| x.mul(y, BITS, ROUNDING);
        let error = (a.magnitude() + b.error).max(b.magnitude() + a.error) + 2;
        if a.is_real() && b.is_real() {
            return Value::real(product(&a.re, &b.re), error);
        }
        let re = product(&a.re, &b.re).sub(&product(&a.im, &b.im), BITS, ROUNDING);
        let im = product(&a.re, &b.im).add(&product(&a.im, &b.re), BITS, ROUNDING);
        let rounding = a.magnitude() + b.magnitude() - BITS as i64 + 3;
        Value::of(re, im, error.max(rounding))
    }

    fn over(&mut self, a: &Value, b: &Value) -> Option<Value> {
        self.budget.spend(2 * ARITHMETIC)?;
        if b.is_zero() {
            return None;
        }
        let quotient = |x: &BigFloat, y: &BigFloat| x.div(y, BITS, ROUNDING);
        let relative = (a.error - a.magnitude()).max(b.error - b.magnitude());
        if a.is_real() && b.is_real() {
            let value = quotient(&a.re, &b.re);
            let error = (log2(&value) + relative + 2).max(a.error - b.magnitude() + 2);
            return Value::real(value, error);
        }
        let conjugate = Value {
            im: b.im.neg(),
            ..b.clone()
        };
        let (top, norm) = (self.times(a, &conjugate)?, self.times(b, &conjugate)?);
        let error = (top.magnitude() - norm.magnitude() + relative + 4)
            .max(top.error - norm.magnitude() + 2);
        Value::of(
            quotient(&top.re, &norm.re),
            quotient(&top.im, &norm.re),
            error,
        )
    }

    fn power(&mut self, base: &Value, exponent: &Value) -> Option<Value> {
        if base.is_zero() {
            let positive = exponent.sign() == Some(Sign::Pos);
            return if positive {
                Value::exact(BigFloat::from_word(0, BITS))
            } else {
                None
            };
        }
        let log = self.ln(base)?;
        let product = self.times(&log, exponent)?;
        self.exp(&product)
    }

    fn exp(&mut self, a: &Value) -> Option<Value> {
        self.budget.spend(TRANSCENDENTAL)?;
        if a.magnitude() > LARGEST_EXPONENT {
            return None;
        }
        let length = a.re.exp(BITS, ROUNDING, self.constants.as_mut()?);
        let error = log2(&length) + a.error + 2;
        if a.is_real() {
            return Value::real(length, error);
        }
        let (sin, cos) = self.sin_cos(&a.im)?;
        let part = |x: &BigFloat| x.mul(&length, BITS, ROUNDING);
        Value::of(
            part(&cos),
            part(&sin),
            error.max(log2(&length) - BITS as i64 + 4),
        )
    }

    fn ln(&mut self, a: &Value) -> Option<Value> {
        self.budget.spend(TRANSCENDENTAL)?;
        if a.is_zero() {
            return None;
        }
        let error = a.error - a.magnitude() + 2;
        if a.sign() == Some(Sign::Pos) {
            return Value::real(
                a.re.ln(BITS, ROUNDING, self.constants.as_mut()?),
                error.max(2 - BITS as i64),
            );
        }
        let norm = self.norm(a)?;
        let half = BigFloat::from_f64(0.5, BITS);
        let length = norm
            .ln(BITS, ROUNDING, self.constants.as_mut()?)
            .mul(&half, BITS, ROUNDING);
        Value::of(length, self.argument(a)?, error.max(8 - BITS as i64))
    }

    /// The square of the absolute value.
    fn norm(&mut self, a: &Value) -> Option<BigFloat> {
        self.budget.spend(2 * ARITHMETIC)?;
        let square = |x: &BigFloat| x.mul(x, BITS, ROUNDING);
        Some(square(&a.re).add(&square(&a.im), BITS, ROUNDING))
    }

    /// The angle, above −π and up to π.
    fn argument(&mut self, a: &Value) -> Option<BigFloat> {
        self.budget.spend(TRANSCENDENTAL)?;
        let pi = self.constants.as_mut()?.pi(BITS, ROUNDING);
        if a.re.is_zero() {
            let half = pi.mul(&BigFloat::from_f64(0.5, BITS), BITS, ROUNDING);
            return Some(if a.im.is_negative() { half.neg() } else { half });
        }
        let angle =
            a.im.div(&a.re, BITS, ROUNDING)
                .atan(BITS, ROUNDING, self.constants.as_mut()?);
        Some(match (a.re.is_negative(), a.im.is_negative()) {
            (false, _) => angle,
            (true, false) => angle.add(&pi, BITS, ROUNDING),
            (true, true) => angle.sub(&pi, BITS, ROUNDING),
        })
    }

    fn sin_cos(&mut self, angle: &BigFloat) -> Option<(BigFloat, BigFloat)> {
        self.budget.spend(2 * TRANSCENDENTAL)?;
        if log2(angle) > LARGEST_ANGLE {
            return None;
        }
        let sin = angle.sin(BITS, ROUNDING, self.constants.as_mut()?);
        Some((sin, angle.cos(BITS, ROUNDING, self.constants.as_mut()?)))
    }

    fn call(&mut self, function: Function, arguments: &[Expr]) -> Option<Value> {
        let mut values = Vec::with_capacity(2);
        for argument in arguments {
            values.push(self.evaluate(argument)?);
        }
        let a = values.first()?.clone();
        match function {
            Function::Exp => self.exp(&a),
            Function::Ln => self.ln(&a),
            Function::Log => {
                let (base, argument) = (self.ln(&a)?, self.ln(values.get(1)?)?);
                self.over(&argument, &base)
            }
            Function::Abs => {
                let norm = self.norm(&a)?;
                Value::real(norm.sqrt(BITS, ROUNDING), a.error + 2)
            }
            Function::Factorial => {
                let n = whole(&a)?;
                self.budget.spend(ARITHMETIC * u64::from(n))?;
                let product = (2..=n).fold(BigFloat::from_word(1, BITS), |product, k| {
                    product.mul(&BigFloat::from_word(k.into(), BITS), BITS, ROUNDING)
                });
                let error = log2(&product) - BITS as i64 + 14;
                Value::real(product, error)
            }
            _ if !a.is_real() => None,
            Function::Floor | Function::Ceiling => {
                let rounded = if function == Function::Floor {
                    a.re.floor()
                } else {
                    a.re.ceil()
                };
                Value::exact(rounded)
            }
            Function::ArcSin | Function::ArcCos | Function::ArcTan => {
                self.budget.spend(2 * TRANSCENDENTAL)?;
                let (rm, constants) = (ROUNDING, self.constants.as_mut()?);
                let angle = match function {
                    Function::ArcSin => a.re.asin(BITS, rm, constants),
                    Function::ArcCos => a.re.acos(BITS, rm, constants),
                    _ => a.re.atan(BITS, rm, constants),
                };
                // The slope grows without bound at the ends of the range.
                Value::real(angle, a.error.max(8 - BITS as i64) / 2)
            }
            Function::Sinh | Function::Cosh | Function::Tanh => {
                let plus = self.exp(&a)?;
                let minus = self.exp(&negated(a))?;
                let (sum, difference) = (self.plus(&plus, &minus)?, self.minus(&plus, &minus)?);
                let two = Value::exact(BigFloat::from_word(2, BITS))?;
                match function {
                    Function::Sinh => self.over(&difference, &two),
                    Function::Cosh => self.over(&sum, &two),
                    _ => self.over(&difference, &sum),
                }
            }
            _ => {
                let (sin, cos) = self.sin_cos(&a.re)?;
                let error = a.error.max(2 - BITS as i64);
                let (sin, cos) = (Value::real(sin, error)?, Value::real(cos, error)?);
                let one = Value::exact(BigFloat::from_word(1, BITS))?;
                match function {
                    Function::Sin => Some(sin),
                    Function::Cos => Some(cos),
                    Function::Tan => self.over(&sin, &cos),
                    Function::Cot => self.over(&cos, &sin),
                    Function::Sec => self.over(&one, &cos),
                    Function::Csc => self.over(&one, &sin),
                    _ => None,
                }
            }
        }
    }
}

impl Drop for Evaluator<'_> {
    fn drop(&mut self) {
        CONSTANTS.set(self.constants.take());
    }
}

fn negated(value: Value) -> Value {
    Value {
        re: value.re.neg(),
        im: value.im.neg(),
        error: value.error,
    }
}

/// For an exponent that is written as a fraction with an odd denominator, whether its numerator is
/// odd: the sign of a negative number's power.
fn odd_root(exponent: &Expr) -> Option<bool> {
    fn value(expr: &Expr) -> Option<BigRational> {
        Some(match expr {
            Expr::Number(value) => value.clone(),
            Expr::Negative(inner) => -value(inner)?,
            Expr::Quotient(parts) => {
                let [a, b] = [value(&parts[0])?, value(&parts[1])?];
                if b == BigRational::from_integer(0.into()) {
                    return None;
                }
                a / b
            }
            _ => return None,
        })
    }
    let value = value(exponent)?;
    value.denom().bit(0).then(|| value.numer().bit(0))
}

/// The small whole number that the value is.
fn whole(value: &Value) -> Option<u32> {
    if !value.is_real() || value.re.is_negative() || !(value.re.is_zero() || value.re.is_int()) {
        return None;
    }
    (0..=LARGEST_FACTORIAL)
        .find(|n| value.re.cmp(&BigFloat::from_word(u64::from(*n), BITS)) == Some(0))
}
