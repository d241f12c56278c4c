#include "kernels/isa.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(Isa, IsTheMachinesWhereNothingIsAsked) {
  EXPECT_EQ(choose_isa(std::nullopt, Isa::avx2).value(), Isa::avx2);
  EXPECT_EQ(choose_isa("", Isa::avx512).value(), Isa::avx512);
}

TEST(Isa, ALowerOneIsTakenByItsName) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    EXPECT_EQ(choose_isa(name_of(isa), Isa::avx512).value(), isa);
}

TEST(Isa, OneThatTheMachineLacksIsAnError) {
  const auto chosen = choose_isa("avx512", Isa::avx2);
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().kind, ErrorKind::invalid);
  EXPECT_EQ(chosen.error().message, "BITCTL_ISA=avx512: this machine has avx2 at most");
}

TEST(Isa, AnUnknownNameIsAnError) {
  EXPECT_EQ(choose_isa("AVX2", Isa::avx512).error().message,
            "BITCTL_ISA=AVX2: not one of scalar, avx2, avx512");
}

}  // namespace
}  // namespace bitctl
