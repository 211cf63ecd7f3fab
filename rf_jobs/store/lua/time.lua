-- The time that the scripts go by. Reply: milliseconds since 1970.
return NOW
