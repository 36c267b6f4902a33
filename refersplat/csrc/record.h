// A Gaussian as the kernels read it: whole vectors of memory. `reach` is 0 where it is not seen.
#pragma once

#include "ellipse.h"

#ifndef REAL
#define REAL float
#endif

namespace refer {

struct alignas(16) Record : Ellipse<REAL> {
  REAL unused;  // else what derives from a record may begin here
};

constexpr int kRecordSize = 8;
static_assert(sizeof(Record) == kRecordSize * sizeof(REAL), "records are rows of a tensor");

}  // namespace refer
