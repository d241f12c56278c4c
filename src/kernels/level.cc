#include "kernels/level.h"

#include "kernels/isa.h"

namespace bitctl {

const Level& level_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return kScalarLevel;
    case Isa::avx2:
      return kAvx2Level;
    case Isa::avx512:
      return kAvx512Level;
  }
  return kScalarLevel;
}

}  // namespace bitctl
