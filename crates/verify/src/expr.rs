//! An answer as a tree.

use num_bigint::BigInt;
use num_rational::BigRational;

/// What an answer says, as it is written; [`crate::meaning`] says what it means.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(BigRational),
    /// Written with a point, and so many digits behind it.
    Decimal {
        value: BigRational,
        places: u32,
    },
    /// Digits with the base in the subscript; the value is that of the digits in that base.
    Based {
        value: BigInt,
        base: u32,
    },
    /// A variable, with its subscript.
    Symbol(String),
    Constant(Constant),
    Sum(Vec<Expr>),
    Product(Vec<Expr>),
    Negative(Box<Expr>),
    /// Numerator and denominator.
    Quotient(Box<[Expr; 2]>),
    /// Base and exponent.
    Power(Box<[Expr; 2]>),
    /// Index and radicand.
    Root(Box<[Expr; 2]>),
    /// `a ± b`, or `a ∓ b` when the minus comes first.
    PlusMinus {
        terms: Box<[Expr; 2]>,
        minus_first: bool,
    },
    Call(Function, Vec<Expr>),
    Percent(Box<Expr>),
    Degrees(Box<Expr>),
    /// Separated by commas, `and` or `or`, without brackets.
    List(Vec<Expr>),
    /// In parentheses or angle brackets.
    Tuple(Vec<Expr>),
    Set(Vec<Expr>),
    /// Square on at least one side: the ends, and whether they belong to it.
    Interval {
        ends: Box<[Expr; 2]>,
        closed: [bool; 2],
    },
    Union(Vec<Expr>),
    /// `3 : 2`, of two parts or more.
    Ratio(Vec<Expr>),
    /// Rows.
    Matrix(Vec<Vec<Expr>>),
    /// One more expression than there are relations between them.
    Relation(Vec<Expr>, Vec<Relation>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    Pi,
    E,
    I,
    Infinity,
    EmptySet,
    Reals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    /// `≈`: what follows is the value in digits.
    Approximate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    ArcSin,
    ArcCos,
    ArcTan,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    Ln,
    /// Base and argument; base ten where none is written.
    Log,
    Abs,
    Floor,
    Ceiling,
    Factorial,
    /// n and k.
    Binomial,
}

impl Function {
    /// The function with this LaTeX or plain name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" => Self::Tan,
            "cot" => Self::Cot,
            "sec" => Self::Sec,
            "csc" => Self::Csc,
            "arcsin" | "asin" => Self::ArcSin,
            "arccos" | "acos" => Self::ArcCos,
            "arctan" | "atan" => Self::ArcTan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "exp" => Self::Exp,
            "ln" => Self::Ln,
            "log" | "lg" => Self::Log,
            _ => return None,
        })
    }

    /// What `f^{-1}` is.
    pub fn inverse(self) -> Option<Self> {
        match self {
            Self::Sin => Some(Self::ArcSin),
            Self::Cos => Some(Self::ArcCos),
            Self::Tan => Some(Self::ArcTan),
            _ => None,
        }
    }
}

impl Expr {
    pub fn integer(value: i64) -> Self {
        Self::Number(BigRational::from_integer(value.into()))
    }

    /// The integer that is written.
    pub fn as_integer(&self) -> Option<&BigInt> {
        match self {
            Self::Number(number) if number.is_integer() => Some(number.numer()),
            _ => None,
        }
    }

    pub fn quotient(numerator: Expr, denominator: Expr) -> Self {
        Self::Quotient(Box::new([numerator, denominator]))
    }

    /// Whether it, or a part of the number or formula that it is, is `wanted`. What lists, sets and
    /// regions hold is no part.
    pub fn has(&self, wanted: fn(&Expr) -> bool) -> bool {
        let parts = match self {
            Self::Sum(parts) | Self::Product(parts) | Self::Call(_, parts) => parts.as_slice(),
            Self::Negative(part) | Self::Percent(part) | Self::Degrees(part) => {
                std::slice::from_ref(part.as_ref())
            }
            Self::Quotient(parts) | Self::Power(parts) | Self::Root(parts) => parts.as_slice(),
            _ => &[],
        };
        wanted(self) || parts.iter().any(|part| part.has(wanted))
    }

    pub fn power(base: Expr, exponent: Expr) -> Self {
        Self::Power(Box::new([base, exponent]))
    }
}
