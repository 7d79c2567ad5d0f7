/* The SDK and the stand-in for the role `executor`, for unit tests: one file to compile with the plugin. */
#include "../bindings/executor/bindings.h"

#include "../src/memory.c"
#include "../src/tensor.c"
#include "../src/float16.c"
#include "../src/json.c"
#include "../src/answer.c"
#include "../src/request.c"
#include "../src/host.c"
#include "../src/calls.c"
#include "../src/role_executor.c"

#include "tensors.c"
#include "host.c"
#include "models.c"
#include "testing.c"
#include "run_executor.c"
