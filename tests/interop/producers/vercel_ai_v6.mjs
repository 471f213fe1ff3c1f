/** The same application on another version of the SDK. */
import './vercel_ai.mjs'
