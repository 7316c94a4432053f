/* Finds the mode of a plan. Called by the engine. */
#include "server/modes/mode.h"

const cs_mode *cs_mode_of(const cs_plan *plan)
{
    switch (plan->federation) {
    case CS_HORIZONTAL:
        return &cs_mode_horizontal;
    case CS_VERTICAL:
        return &cs_mode_vertical;
    }
    return NULL;
}
