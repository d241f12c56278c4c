#include "launch/processes.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace bitctl {
namespace {

TEST(StuckProcess, IsNamedWithItsStateAndWhereItWaits) {
  EXPECT_EQ(describe_unkillable({{4711, "python", 'D', "folio_wait_bit"}, {12, "sh", 'D', ""}}),
            "cannot be killed: 4711 (python, state D in folio_wait_bit), 12 (sh, state D)");
}

TEST(StuckProcess, IsReadFromProc) {
  const StuckProcess self = stuck_process(::getpid());
  EXPECT_EQ(self.command, "launch_test");
  EXPECT_EQ(self.state, 'R');
  const Json row = unkillable_tree({::getpid(), 1 << 30}).fields;
  EXPECT_EQ(row["processes"][0]["command"], "launch_test");
  EXPECT_EQ(row["processes"][1]["state"], "X") << "gone meanwhile";
  EXPECT_TRUE(get_text(row, "reason").starts_with("cannot be killed: "));
}

}  // namespace
}  // namespace bitctl
